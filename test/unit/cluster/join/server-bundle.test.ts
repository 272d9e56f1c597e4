import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { authorityHash, newKey } from '../../../../src/cluster/join/token.ts'
import {
  bundleName,
  openBundle,
  pairOf,
  readBundle,
  sealBundle,
  type ServerBundle,
} from '../../../../src/cluster/join/server-bundle.ts'
import { prepareEtcdPki } from '../../../../src/pki/etcd.ts'
import { preparePki } from '../../../../src/pki/pki.ts'
import { temporaryDirectory } from '../../datastore/support.ts'

const identity = {
  ...{ nodeName: 'a', nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1', bindAddress: '0.0.0.0' },
  ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
}
const cluster = { 'server-mode': 'ha', 'cluster-init': 'true', 'service-cidr': '10.96.0.0/12' }

async function keys() {
  const dir = join(temporaryDirectory(), 'pki')
  await preparePki({ ...identity, dir })
  await prepareEtcdPki({ dir, isNew: true, nodeIp: identity.nodeIp })
  const caHash = authorityHash(readFileSync(join(dir, 'server-ca.crt'), 'utf8'))
  return { dir, caHash, key: newKey() }
}

test('a bundle has the keys of the cluster and those of no machine, and opens with its key alone', async () => {
  const { dir, caHash, key } = await keys()
  const bundle = await readBundle(dir, cluster)
  expect(Object.keys(bundle.files).sort()).toEqual([
    ...['client-ca.crt', 'client-ca.key', 'encryption-config.yaml', 'etcd-ca.crt', 'etcd-ca.key'],
    ...['request-header-ca.crt', 'request-header-ca.key', 'server-ca.crt', 'server-ca.key'],
    ...['service-account.key', 'service-account.pub'],
  ])
  const sealed = sealBundle(bundle, { key, caHash })
  expect(openBundle(sealed, { key, caHash })).toEqual(bundle)
  expect(sealed.includes('PRIVATE KEY')).toBe(false)
  expect(sealBundle(bundle, { key, caHash }).equals(sealed)).toBe(false)
  expect(pairOf(bundle, 'client').key).toBe(readFileSync(join(dir, 'client-ca.key'), 'utf8'))
  expect(bundleName('abcdef')).toBe('k8s-server-bundle-abcdef')
  expect(statSync(join(dir, 'server-ca.key')).mode & 0o777).toBe(0o600)
  const closed = /^cannot be opened with this token$/
  expect(() => openBundle(sealed, { key: newKey(), caHash })).toThrow(closed)
  expect(() => openBundle(sealed, { key, caHash: 'b'.repeat(64) })).toThrow(closed)
  for (const index of [0, 20, sealed.length - 1]) {
    const changed = Buffer.from(sealed)
    changed.writeUInt8(changed.readUInt8(index) ^ 1, index)
    expect(() => openBundle(changed, { key, caHash })).toThrow(closed)
  }
  for (const size of [0, 28, 1024 * 1024])
    expect(() => openBundle(Buffer.alloc(size), { key, caHash })).toThrow(/has \d+ bytes|cannot be opened/)
})

test('an etcd that others run has no authority in it', async () => {
  const { dir } = await keys()
  const { files } = await readBundle(dir, { ...cluster, 'cluster-init': 'false' })
  expect(Object.keys(files).filter((name) => name.includes('etcd'))).toEqual([])
})

test.for<[string, (bundle: ServerBundle) => object, string]>([
  ['of another format', (bundle) => ({ ...bundle, formatVersion: 2 }), 'has the format 2'],
  ['without files', () => ({ formatVersion: 1, cluster }), 'lacks server-ca.key'],
  ['without facts', (bundle) => ({ ...bundle, formatVersion: 1, cluster: { a: 1 } }), 'has no facts'],
  [
    'with the key of another authority',
    (bundle) => ({
      ...bundle,
      formatVersion: 1,
      files: { ...bundle.files, 'client-ca.key': bundle.files['server-ca.key'] },
    }),
    'has an authority whose key is not its own: client',
  ],
])('a bundle %s is refused', async ([, change, reason]) => {
  const { dir, caHash, key } = await keys()
  const bundle = await readBundle(dir, cluster)
  const sealed = sealBundle(change(bundle) as ServerBundle, { key, caHash })
  expect(() => openBundle(sealed, { key, caHash })).toThrow(reason)
})

test('one of another cluster is refused, and what is not whole is not given away', async () => {
  const [one, other] = await Promise.all([keys(), keys()])
  const sealed = sealBundle(await readBundle(other.dir, cluster), one)
  expect(() => openBundle(sealed, one)).toThrow('is that of another cluster')
  rmSync(join(one.dir, 'service-account.key'))
  await expect(readBundle(one.dir, cluster)).rejects.toMatchObject({ code: 'PKI_INCOMPLETE' })
  writeFileSync(join(other.dir, 'etcd-ca.key'), '')
  await expect(readBundle(other.dir, cluster)).rejects.toThrow('etcd-ca.key is empty')
})
