import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { requireServerVersion } from '../../../src/cluster/version.ts'
import type { Config } from '../../../src/config/config.ts'
import { updateNodeRecord } from '../../../src/config/facts.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { pkiFiles } from '../../../src/pki/pki.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { FakeCluster } from './join/fake-cluster.ts'

/** A server of version v1.37.1, which knows of another one. */
async function server() {
  const cluster = await new FakeCluster().start()
  const paths = pathsOf({ dataDir: join(temporaryDirectory(), 'data') })
  mkdirSync(paths.pkiDir, { recursive: true })
  updateNodeRecord(paths, { otherMembers: ['https://127.0.0.1:2379'] })
  const { authorities, leaves } = pkiFiles(paths.pkiDir)
  const admin = cluster.clientAuthority.issue({ usage: 'client' })
  writeFileSync(authorities.server.certFile, cluster.authority.cert)
  writeFileSync(leaves['admin-client'].certFile, admin.cert)
  writeFileSync(leaves['admin-client'].keyFile, admin.key)
  const config = { httpsListenPort: cluster.port } as Config
  const payload = { version: { gitVersion: 'v1.37.1+k8s.1' } } as never
  const { signal } = new AbortController()
  const check = () => requireServerVersion(config, { paths, payload, signal, log: silentLogger })
  return { cluster, check }
}

test.each(['v1.36.4+k8s.1', 'v1.37.9', 'v1.38.0'])('a server goes with one of %s', async (version) => {
  const { cluster, check } = await server()
  cluster.version = version
  await check()
  expect(cluster.asked).toContain('/version')
})

test.each(['v1.35.9', 'v1.39.0'])('it is refused beside one of %s', async (version) => {
  const { cluster, check } = await server()
  cluster.version = version
  await expect(check()).rejects.toMatchObject({
    code: 'NODE_SKEW',
    message: `cannot run this node: this machine has v1.37.1+k8s.1, and the server ${version}`,
    remedy: expect.stringContaining('at most one minor version apart'),
  })
})

test.each<[string, (cluster: FakeCluster) => void]>([
  ['is away', (cluster) => cluster.stop()],
  ['does not say', (cluster) => (cluster.status = 500)],
])('one that %s is not waited for', async (_, fail) => {
  const { cluster, check } = await server()
  fail(cluster)
  await expect(check()).resolves.toBeUndefined()
})
