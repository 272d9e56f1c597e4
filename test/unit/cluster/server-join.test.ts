import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { readBundle, sealBundle } from '../../../src/cluster/join/server-bundle.ts'
import { authorityHash, formatToken, newKey } from '../../../src/cluster/join/token.ts'
import { isNewcomer } from '../../../src/cluster/prepare.ts'
import { joinAsServer } from '../../../src/cluster/server/join.ts'
import type { Config } from '../../../src/config/config.ts'
import { readFacts, readNodeRecord } from '../../../src/config/facts.ts'
import { type JoinedFacts, loadConfig } from '../../../src/config/load.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { prepareEtcdPki } from '../../../src/pki/etcd.ts'
import { preparePki } from '../../../src/pki/pki.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { FakeEtcd } from '../storage/fake-etcd.ts'
import { FakeCluster, token } from './join/fake-cluster.ts'

vi.setConfig({ testTimeout: 60_000 })

const identity = {
  ...{ nodeName: 'first', nodeIp: '127.0.0.1', advertiseAddress: '127.0.0.1', bindAddress: '0.0.0.0' },
  ...{ serviceCidr: '10.8.0.0/16', clusterDomain: 'example.test', tlsSan: [] },
}
const facts = {
  ...{ 'server-mode': 'ha', 'cluster-init': 'true', 'etcd-prefix': '/registry' },
  ...{ 'cluster-cidr': '10.7.0.0/16', 'service-cidr': '10.8.0.0/16', 'cluster-dns': '10.8.0.10' },
  'cluster-domain': 'example.test',
}
const members = 'https://192.0.2.1:2379'

/** A server that others may join. */
async function firstServer(cluster: Record<string, string> = facts) {
  const dir = join(temporaryDirectory(), 'pki')
  await preparePki({ ...identity, dir })
  await prepareEtcdPki({ dir, isNew: true, nodeIp: identity.nodeIp })
  const read = (name: string) => readFileSync(join(dir, name), 'utf8')
  const fake = new FakeCluster()
  fake.authority = { ...fake.authority, cert: read('server-ca.crt') }
  fake.version = 'v1.37.1'
  const key = newKey()
  const caHash = authorityHash(fake.authority.cert)
  const state = {
    removed: { second: '2026-01-01' } as Record<string, string>,
    ...{ promised: {} as Record<string, string>, version: 1, members: members as string | undefined },
    backend: 'vxlan',
    sealed: sealBundle(await readBundle(dir, cluster), { key, caHash }) as Buffer | undefined,
  }
  const configMap = (data: object) => ({ metadata: { resourceVersion: String(state.version) }, data })
  fake.more = ({ path, method, body }) => {
    if (path.endsWith(`/secrets/k8s-server-bundle-${token.id}`)) {
      const { sealed } = state
      return sealed === undefined ? [403, {}] : [200, { data: { bundle: sealed.toString('base64') } }]
    }
    if (path.endsWith('/configmaps/k8s-etcd-members'))
      return state.members === undefined ? [404, {}] : [200, configMap({ members: state.members })]
    if (path.endsWith('/configmaps/k8s-removed-nodes')) {
      if (method === 'PUT') state.removed = (JSON.parse(body) as { data: Record<string, string> }).data
      return [200, configMap(state.removed)]
    }
    if (path.endsWith('/configmaps/kubeadm-config'))
      return [200, configMap({ 'network-backend': state.backend })]
    if (!path.includes('/kube-system/configmaps') || path.endsWith('-config')) {
      if (!path.startsWith('/api/v1/nodes/')) return undefined
      return [fake.nodes.has(path.slice(14)) ? 200 : 404, {}]
    }
    if (method === 'GET') return [200, configMap(state.promised)]
    const sent = JSON.parse(body) as { data: Record<string, string>; metadata: { resourceVersion?: string } }
    if (sent.metadata.resourceVersion !== String(state.version)) return [409, {}]
    Object.assign(state, { promised: sent.data, version: state.version + 1 })
    return [200, configMap(sent.data)]
  }
  await fake.start({ cert: read('apiserver.crt'), key: read('apiserver.key') })
  const word = formatToken({ role: 'server', caHash, ...token, key })
  return { fake, state, dir, token: word, key, caHash }
}

/** A machine of which nothing is known yet. */
function machine(dataDir = join(temporaryDirectory(), 'data')) {
  const paths = pathsOf({ dataDir })
  const board = new Board()
  const end = new AbortController()
  const notify = {
    ...{ ready: () => {}, stopping: () => {}, extendTimeout: () => {}, status: () => {}, watchdog: () => {} },
    watchdogMs: undefined,
  }
  const load = (settings: Record<string, string>, joined?: JoinedFacts) => {
    const all = { 'data-dir': dataDir, 'node-name': 'second', ...settings }
    const flags = Object.entries(all).map(([name, text]) => ({ name, text }))
    return loadConfig({ flags, environment: {}, ...(joined && { joined }) })
  }
  const start = async (
    settings: Record<string, string> = {},
    withFacts = (joined: JoinedFacts): Promise<Config> => load({ 'server-mode': 'ha', ...settings }, joined),
  ) => {
    const config = await load({ 'server-mode': 'ha', ...settings })
    mkdirSync(dataDir, { recursive: true })
    return joinAsServer(config, {
      ...{ paths, board, notify, withFacts, log: silentLogger, signal: end.signal },
      ...{ retryMs: 20, patienceMs: 0 },
      payload: { version: { gitVersion: 'v1.37.1' } } as never,
    })
  }
  return { dataDir, paths, board, end, load, start }
}

test('with its token a server has the keys and the facts of the cluster, and has its name promised', async () => {
  const first = await firstServer()
  const { start, paths, dataDir, load } = machine()
  const settings = { server: first.fake.url, token: first.token }
  expect(isNewcomer(await load({ 'server-mode': 'ha', ...settings }), paths)).toBe(true)
  const config = await start(settings)
  expect(config).toMatchObject({ clusterInit: true, serviceCidr: '10.8.0.0/16', clusterDns: '10.8.0.10' })
  for (const name of [
    'server-ca.key',
    'client-ca.key',
    'etcd-ca.key',
    'service-account.key',
    'etcd-ca.crt',
  ]) {
    const path = join(paths.pkiDir, name)
    expect(readFileSync(path, 'utf8')).toBe(readFileSync(join(first.dir, name), 'utf8'))
    expect((statSync(path).mode & 0o777).toString(8)).toBe(name.endsWith('.key') ? '600' : '644')
  }
  expect(existsSync(join(paths.pkiDir, 'apiserver.key'))).toBe(false)
  expect(readFacts(dataDir).cluster).toMatchObject(facts)
  const record = readNodeRecord(paths)
  expect(record).toMatchObject({
    ...{ isJoining: true, joinedAt: [first.fake.url], otherMembers: [members] },
    settings: { role: 'server', 'node-name': 'second' },
  })
  expect(first.state.promised).toEqual({ second: `server-${record.id}` })
  // One that was removed under this name is no obstacle.
  expect(first.state.removed).toEqual({})
  // Nothing of the token is on the disk, and from here on it is not needed.
  expect(readFileSync(paths.nodeRecord, 'utf8')).not.toContain(first.key)
  expect(isNewcomer(await load({}), paths)).toBe(false)
})

test('interrupted after any step it goes on, and never makes a cluster of its own', async () => {
  const first = await firstServer()
  const { start, paths, dataDir } = machine()
  const settings = { server: first.fake.url, token: first.token }
  // Noted and promised; the keys could not be written.
  mkdirSync(join(paths.pkiDir, 'server-ca.key'), { recursive: true })
  await expect(start(settings)).rejects.toMatchObject({ code: 'FILE_WRITE' })
  const { id } = readNodeRecord(paths)
  expect(readNodeRecord(paths).isJoining).toBe(true)
  expect(existsSync(paths.clusterFacts)).toBe(false)
  const other = machine(dataDir)
  expect(isNewcomer(await other.load({}), paths)).toBe(true)
  await expect(other.start({ 'server-mode': 'single' })).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.stringContaining(`it has begun to join that of ${first.fake.url}`),
  })
  await expect(other.start({ 'cluster-init': 'true' })).rejects.toThrow('has begun to join')
  await expect(other.start({})).rejects.toThrow('it needs a token, which "k8s token create --role=server"')
  const { rmdirSync } = await import('node:fs')
  rmdirSync(join(paths.pkiDir, 'server-ca.key'))
  // Its Node has come meanwhile, and the promise is forgotten.
  first.state.promised = {}
  first.fake.nodes.add('second')
  expect(await start({ token: first.token })).toMatchObject({ clusterInit: true })
  expect(readNodeRecord(paths).id).toBe(id)
})

test.for<[string, (first: Awaited<ReturnType<typeof firstServer>>) => Record<string, string>, string]>([
  [
    'other facts',
    () => ({ 'service-cidr': '10.9.0.0/16' }),
    'the cluster was created with service-cidr 10.8.0.0/16',
  ],
  ['an etcd of others', () => ({ 'etcd-endpoints': 'https://a:1' }), 'the servers have an etcd of their own'],
  [
    'the name of a Node',
    ({ fake }) => (fake.nodes.add('second'), {}),
    'the cluster has a Node second already',
  ],
  [
    'a name that is promised to another',
    ({ state }) => ((state.promised = { second: 'somebody' }), {}),
    'the name second is promised to another machine',
  ],
  [
    'another network',
    ({ state }) => ((state.backend = 'host-gw'), {}),
    'by network-backend host-gw, and this one would by vxlan',
  ],
  [
    'the token of an agent',
    ({ caHash }) => ({ token: formatToken({ role: 'agent', caHash, ...token }) }),
    'it is one for an agent; make one with k8s token create --role=server',
  ],
  [
    'the key of another token',
    ({ caHash }) => ({ token: formatToken({ role: 'server', caHash, ...token, key: newKey() }) }),
    'cannot be opened with this token',
  ],
  [
    'no keys for the token',
    ({ state }) => ((state.sealed = undefined), {}),
    'there are no keys for the token abcdef',
  ],
  [
    'an expired token',
    ({ fake }) => ((fake.isTokenGood = false), {}),
    'it does not take the token abcdef: it has expired',
  ],
  [
    'a newer version',
    ({ fake }) => ((fake.version = 'v1.35.0'), {}),
    'this machine has v1.37.1, and the server v1.35.0',
  ],
  [
    'an older version',
    ({ fake }) => ((fake.version = 'v1.39.0'), {}),
    'this machine has v1.37.1, and the server v1.39.0',
  ],
  [
    'another cluster',
    ({ key }) => ({ token: formatToken({ role: 'server', caHash: 'b'.repeat(64), ...token, key }) }),
    `the token is for sha256:${'b'.repeat(64)}`,
  ],
])('%s: one line says so, and nothing is written', async ([, change, message]) => {
  const first = await firstServer()
  const { start, dataDir, paths } = machine()
  const failed = start({ server: first.fake.url, token: first.token, ...change(first) })
  await expect(failed).rejects.toThrow(message)
  expect(existsSync(paths.nodeRecord)).toBe(false)
  expect(existsSync(paths.pkiDir)).toBe(false)
  expect(existsSync(join(dataDir, 'cluster.json'))).toBe(false)
  const before = { ...first.state.promised }
  expect(before['second'] ?? 'somebody').toBe('somebody')
})

test('a cluster of one server takes no other, and one in an etcd of others wants to be told that', async () => {
  const single = await firstServer({ ...facts, 'server-mode': 'single', 'cluster-init': 'false' })
  await expect(machine().start({ server: single.fake.url, token: single.token })).rejects.toThrow(
    'it is a cluster of one server (server-mode single)',
  )
  const external = await firstServer({ ...facts, 'cluster-init': 'false' })
  const settings = { server: external.fake.url, token: external.token }
  await expect(machine().start(settings)).rejects.toThrow('without --etcd-endpoints: others run its etcd')
  external.state.members = undefined
  const { start, paths } = machine()
  const etcd = new FakeEtcd()
  const endpoint = (await etcd.member('theirs')).clientUrl
  const joining = { ...settings, 'etcd-endpoints': endpoint }
  await expect(start(joining)).rejects.toThrow(`the etcd at ${endpoint} has no cluster below /registry`)
  etcd.value = 'f'.repeat(64)
  await expect(start(joining)).rejects.toThrow(`the etcd at ${endpoint} has another cluster below /registry`)
  expect(existsSync(paths.nodeRecord)).toBe(false)
  etcd.value = external.caHash
  // The first that answers is enough.
  const endpoints = ['http://127.0.0.1:1', endpoint]
  const config = await start({ ...settings, 'etcd-endpoints': endpoints.join() })
  expect(config).toMatchObject({ clusterInit: false, etcdEndpoints: endpoints })
  expect(existsSync(join(paths.pkiDir, 'etcd-ca.key'))).toBe(false)
})

test('what the servers have not said yet is waited for, until the end of the daemon', async () => {
  const first = await firstServer()
  first.state.members = undefined
  const { start, board, end } = machine()
  const started = start({ server: first.fake.url, token: first.token })
  await vi.waitFor(() =>
    expect(board.part('joining')?.message).toContain('does not say yet where the members of etcd are'),
  )
  first.state.members = 'https://192.0.2.1:2379,http://192.0.2.2:2379,x'
  expect(await started).toBeDefined()
  const other = machine()
  first.fake.isReady = false
  first.fake.isOpen = false
  const waiting = other.start({ server: first.fake.url, token: first.token, 'node-name': 'third' })
  await vi.waitFor(() => expect(other.board.part('joining')?.state).toBe('degraded'))
  other.end.abort()
  expect(await waiting).toBeUndefined()
  expect(existsSync(other.paths.nodeRecord)).toBe(false)
  end.abort()
})

test('nobody joins without a server, or creates a cluster and joins another one at once', async () => {
  await expect(machine().start({ token: 'x' })).rejects.toThrow('name one with --server=https://HOST:6443')
  await expect(machine().start({ 'cluster-init': 'true', server: 'https://192.0.2.1:6443' })).rejects.toThrow(
    '--server=https://192.0.2.1:6443 joins one that is there; leave one of them away',
  )
})
