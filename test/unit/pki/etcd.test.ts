import { X509Certificate } from 'node:crypto'
import { mkdtempDisposableSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { etcdPkiFiles, prepareEtcdPki } from '../../../src/pki/etcd.ts'

const now = new Date('2026-11-26T10:00:00Z')
const certificateIn = (path: string) => new X509Certificate(readFileSync(path))
const directory = () => mkdtempDisposableSync(join(tmpdir(), 'k8s-etcd-pki-'))

test('members, their peers and their clients have certificates of an authority of their own, each for its use', async () => {
  using dir = directory()
  await prepareEtcdPki({ dir: dir.path, isNew: true, nodeIp: '192.0.2.7', now })
  const { authority, leaves } = etcdPkiFiles(dir.path)
  const issuer = certificateIn(authority.certFile)
  const [serverAuth, clientAuth] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']
  expect(
    Object.values(leaves).map(({ certFile }) => {
      const certificate = certificateIn(certFile)
      expect(certificate.verify(issuer.publicKey)).toBe(true)
      return [certificate.subject, certificate.keyUsage, certificate.subjectAltName?.split(', ')]
    }),
  ).toEqual([
    ['CN=k8s-etcd', [serverAuth], names],
    ['CN=k8s-etcd-peer', [serverAuth, clientAuth], names],
    ['CN=k8s-etcd-client', [clientAuth], undefined],
  ])
  for (const name of readdirSync(dir.path))
    expect([name, statSync(join(dir.path, name)).mode & 0o777]).toEqual([
      name,
      name.endsWith('.key') ? 0o600 : 0o644,
    ])
  const inSnapshots = bundleFiles(dir.path).map(({ path }) => path)
  expect(inSnapshots).not.toContain(authority.keyFile)
})

const names = ['DNS:localhost', 'IP Address:127.0.0.1', 'IP Address:0:0:0:0:0:0:0:1', 'IP Address:192.0.2.7']

test('nothing is made twice, and another address is followed with the same authority', async () => {
  using dir = directory()
  const given = { dir: dir.path, isNew: true, nodeIp: '192.0.2.7', now }
  await prepareEtcdPki(given)
  expect((await prepareEtcdPki(given)).renewed).toEqual([])
  const { renewed } = await prepareEtcdPki({ ...given, isNew: false, nodeIp: '192.0.2.8' })
  expect(renewed).toEqual([
    { name: 'etcd-server', reason: 'its names changed' },
    { name: 'etcd-peer', reason: 'its names changed' },
  ])
})

test('an authority that was lost is not replaced: the other members trust the former one', async () => {
  using dir = directory()
  const given = { dir: dir.path, isNew: true, nodeIp: '192.0.2.7', now }
  await prepareEtcdPki(given)
  const { authority } = etcdPkiFiles(dir.path)
  rmSync(authority.keyFile)
  rmSync(authority.certFile)
  await expect(prepareEtcdPki({ ...given, isNew: false })).rejects.toThrow(
    `cannot use ${authority.certFile}: it is missing`,
  )
  await expect(prepareEtcdPki(given)).rejects.toThrow('it is missing')
})
