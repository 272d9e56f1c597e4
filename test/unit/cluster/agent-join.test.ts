import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { joinAsAgent } from '../../../src/cluster/agent/join.ts'
import { rememberedServers, rememberServers } from '../../../src/cluster/agent/remembered-servers.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { type BootstrapToken, formatToken } from '../../../src/cluster/join/token.ts'
import { joinedFiles } from '../../../src/components/node-access.ts'
import type { AgentConfig } from '../../../src/config/config.ts'
import { readFacts, readNodeRecord } from '../../../src/config/facts.ts'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { readCertificateRequest } from '../../../src/pki/certificate-request.ts'
import { freePort } from '../../free-port.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { until } from '../supervisor/support.ts'
import { FakeCluster, token } from './join/fake-cluster.ts'

vi.setConfig({ testTimeout: 60_000 })

const tokenOf = (cluster: FakeCluster, role: 'agent' | 'server' = 'agent') =>
  formatToken({
    ...{ role, caHash: cluster.caHash, ...token },
    ...(role === 'server' && { key: '0'.repeat(64) }),
  })

/** A machine of which nothing is known yet. */
function machine({ dataDir = join(temporaryDirectory(), 'data') } = {}) {
  const paths = pathsOf({ dataDir })
  const board = new Board()
  const told: string[] = []
  const notify = {
    ready: () => void told.push('ready'),
    stopping: () => {},
    extendTimeout: () => {},
    status: () => {},
    watchdog: () => {},
    watchdogMs: undefined,
  }
  const end = new AbortController()
  const start = async (settings: Record<string, string> = {}, extra: { patienceMs?: number } = {}) => {
    const flags = Object.entries(settings).map(([name, text]) => ({ name, text }))
    const config = await loadAnyConfig({
      flags: [{ name: 'data-dir', text: dataDir }, { name: 'node-name', text: 'a' }, ...flags],
      environment: {},
      role: 'agent',
    })
    mkdirSync(dataDir, { recursive: true })
    return joinAsAgent(config as AgentConfig, {
      ...{
        paths,
        board,
        notify,
        log: silentLogger,
        signal: end.signal,
        retryMs: 20,
        patienceMs: 0,
        ...extra,
      },
      payload: { version: { gitVersion: 'v1.37.1' } } as never,
    })
  }
  return { dataDir, paths, board, told, end, start }
}

test('a machine that joins keeps what it learns, notes that it is joining, and needs neither token nor server to go on', async () => {
  const cluster = await new FakeCluster().start()
  const { paths, dataDir, start } = machine()
  const config = await start({ server: cluster.url, token: tokenOf(cluster) })
  expect(config).toMatchObject({
    clusterCidr: '10.7.0.0/16',
    clusterDns: '10.8.0.10',
    clusterDomain: 'example.test',
  })
  expect(readNodeRecord(paths)).toMatchObject({
    settings: { role: 'agent', 'node-name': 'a' },
    ...{ servers: [cluster.url], joinedAt: [cluster.url], isJoining: true },
  })
  const { certificateFile } = joinedFiles(paths)
  expect(lstatSync(certificateFile).isSymbolicLink()).toBe(true)
  expect(statSync(certificateFile).mode & 0o777).toBe(0o600)
  const pair = readFileSync(certificateFile, 'utf8')
  expect(
    new X509Certificate(pair).checkPrivateKey(createPrivateKey(/-----BEGIN EC[^]*/.exec(pair)![0])),
  ).toBe(true)
  expect(readdirSync(paths.pkiDir).toSorted()).toEqual([
    ...['client-ca.crt', expect.stringMatching(/^kubelet-client-[-\d]+\.pem$/)],
    ...['kubelet-client-current.pem', 'server-ca.crt'],
  ])
  expect(existsSync(paths.joiningKey)).toBe(false)
  const [asked = ''] = cluster.requests.values()
  expect(readCertificateRequest(asked)).toMatchObject({
    ...{ commonName: 'system:node:a', organizations: ['system:nodes'], names: [], addresses: [] },
  })
  const all = readdirSync(dataDir, { recursive: true, withFileTypes: true })
  for (const entry of all.filter((one) => one.isFile()))
    expect(readFileSync(join(entry.parentPath, entry.name), 'utf8')).not.toContain(token.secret)
  cluster.stop()
  expect(await start()).toMatchObject({ clusterCidr: '10.7.0.0/16', serviceCidr: '10.8.0.0/16' })
  expect(readFacts(dataDir).node['role']).toBe('agent')
})

test('ID.SECRET with the hash of the authority is a token, and one in a file', async () => {
  const cluster = await new FakeCluster().start()
  const { dataDir, start } = machine()
  mkdirSync(dataDir, { recursive: true })
  const file = join(dataDir, 'token')
  writeFileSync(file, `${token.id}.${token.secret}\n`)
  await expect(
    start({ server: cluster.url, 'token-file': file, 'ca-hash': `sha256:${cluster.caHash}` }),
  ).resolves.toBeDefined()
})

test.each<[string, (cluster: FakeCluster) => Record<string, string>, string, RegExp]>([
  ['without a token', ({ url }) => ({ server: url }), 'USAGE', /it needs a token/],
  [
    'without a server',
    (c) => ({ token: tokenOf(c) }),
    'USAGE',
    /without a server of it: name one with --server/,
  ],
  [
    'with half a token',
    ({ url }) => ({ server: url, token: 'k8s1-agent-abc' }),
    'JOIN_TOKEN',
    /cannot read the token/,
  ],
  [
    'with a token file that is not there',
    ({ url }) => ({ server: url, 'token-file': '/none' }),
    'JOIN_TOKEN',
    /cannot read the token in \/none/,
  ],
  [
    'with the token of a server',
    (c) => ({ server: c.url, token: tokenOf(c, 'server') }),
    'USAGE',
    /one for a server/,
  ],
  [
    'with two hashes',
    (c) => ({ server: c.url, token: tokenOf(c), 'ca-hash': `sha256:${'b'.repeat(64)}` }),
    'USAGE',
    /leave it away/,
  ],
  [
    'to another cluster',
    (c) => ({ server: c.url, token: formatToken({ role: 'agent', caHash: 'a'.repeat(64), ...token }) }),
    'JOIN_REFUSED',
    /the token is for/,
  ],
  [
    'with a token that has expired',
    (c) => (void (c.isTokenGood = false), { server: c.url, token: tokenOf(c) }),
    'JOIN_TOKEN_UNKNOWN',
    /expired/,
  ],
  [
    'with another secret',
    (c) => (void (c.signer = { ...token, secret: 'f'.repeat(16) }), { server: c.url, token: tokenOf(c) }),
    'JOIN_SIGNATURE',
    /is not signed with the secret of the token/,
  ],
  [
    'with a name in use',
    (c) => (void c.nodes.add('a'), { server: c.url, token: tokenOf(c) }),
    'JOIN_REFUSED',
    /has a Node a already/,
  ],
])('%s nothing is joined, and nothing written', async (_, settings, code, message) => {
  const cluster = await new FakeCluster().start()
  const { dataDir, start, told } = machine()
  const error = await start(settings(cluster)).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
  expect(JSON.stringify(error) + String(error)).not.toContain(token.secret)
  expect(readdirSync(dataDir)).toEqual([])
  expect(told).toEqual([])
})

test('a server that is away is waited for, shown with the reason, and no start fails for it', async () => {
  const cluster = new FakeCluster()
  cluster.port = await freePort()
  const { board, told, start } = machine()
  const joining = start({
    server: `https://127.0.0.1:${await freePort()},${cluster.url}`,
    token: tokenOf(cluster),
  })
  await until(() => board.part('joining')?.message?.includes('ECONNREFUSED'))
  expect(board.part('joining')).toMatchObject({
    state: 'degraded',
    message: expect.stringMatching(/^waiting for a server: /),
  })
  expect(told).toEqual(['ready'])
  await cluster.start()
  await expect(joining).resolves.toMatchObject({ clusterDomain: 'example.test' })
  expect(board.part('joining')).toBeUndefined()
})

test.each<[string, BootstrapToken | undefined, string]>([
  ['a token that has just been made', undefined, 'does not know the token abcdef'],
  ['a cluster-info that has just changed', { ...token, secret: 'f'.repeat(16) }, 'is not signed with'],
])('nobody is refused for %s, before it is signed', async (_, signer, reason) => {
  const cluster = await new FakeCluster().start()
  cluster.signer = signer
  const { board, told, start } = machine()
  const joining = start({ server: cluster.url, token: tokenOf(cluster) }, { patienceMs: 60_000 })
  await until(() => board.part('joining')?.message?.includes(reason))
  cluster.signer = token
  await expect(joining).resolves.toBeDefined()
  expect(told).toEqual([])
})

test('a wait ends when it is told to', async () => {
  const { end, start, board } = machine()
  const cluster = new FakeCluster()
  cluster.port = await freePort()
  const joining = start({ server: cluster.url, token: tokenOf(cluster) })
  await until(() => board.part('joining'))
  end.abort()
  await expect(joining).resolves.toBeUndefined()
})

test('with a certificate it has joined; one that has expired is told, and a new token joins anew', async () => {
  const cluster = await new FakeCluster().start()
  const { paths, start } = machine()
  const settings = { server: cluster.url, token: tokenOf(cluster) }
  await start(settings)
  const { certificateFile } = joinedFiles(paths)
  cluster.stop()
  // A token that is still in the settings is passed over, whatever became of it.
  await expect(start(settings)).resolves.toMatchObject({ clusterCidr: '10.7.0.0/16' })
  expect(cluster.requests.size).toBe(1)
  vi.useFakeTimers({ now: Date.now() + 10 * 86_400_000, toFake: ['Date'] })
  try {
    await expect(start()).rejects.toMatchObject({
      code: 'JOIN_CLOCK',
      message: expect.stringContaining('has expired'),
    })
  } finally {
    vi.useRealTimers()
  }
  writeFileSync(certificateFile, 'damaged')
  await cluster.start()
  await expect(start(settings)).resolves.toBeDefined()
  expect(cluster.requests.size).toBe(2)
  expect(readFileSync(certificateFile, 'utf8')).toContain('BEGIN CERTIFICATE')
})

test('a machine that ended before its certificate came asks again with the same key', async () => {
  const cluster = await new FakeCluster().start()
  const { paths, start, end, board } = machine()
  const approve = cluster.verdict
  cluster.verdict = () => ({})
  const settings = { server: cluster.url, token: tokenOf(cluster) }
  const joining = start(settings)
  await until(() => board.part('joining')?.message?.includes('has not approved the certificate'))
  end.abort()
  await expect(joining).resolves.toBeUndefined()
  expect(statSync(paths.joiningKey).mode & 0o777).toBe(0o600)
  expect(existsSync(paths.clusterFacts)).toBe(false)

  cluster.verdict = approve
  const again = machine({ dataDir: paths.dataDir })
  await expect(again.start(settings)).resolves.toBeDefined()
  const hashes = [...cluster.requests.values()].map((pem) => readCertificateRequest(pem).keyHash)
  expect(hashes).toHaveLength(2)
  expect(new Set(hashes).size).toBe(1)
})

test('one that the cluster refuses is told why, and nothing of it stays', async () => {
  const cluster = await new FakeCluster().start()
  cluster.verdict = () => ({ conditions: [{ type: 'Denied', message: 'the name a is in use by a Node' }] })
  const { dataDir, start } = machine()
  await expect(start({ server: cluster.url, token: tokenOf(cluster) })).rejects.toMatchObject({
    code: 'JOIN_REFUSED',
    message: expect.stringContaining(
      'refuses the certificate of this machine: the name a is in use by a Node',
    ),
  })
  expect(readdirSync(dataDir)).toEqual([])
})

test.each<[string, (cluster: FakeCluster) => void, string]>([
  [
    'could not sign',
    (c) => (c.verdict = () => ({ conditions: [{ type: 'Failed' }] })),
    'it does not say why',
  ],
  [
    'signed another key',
    (c) => {
      const { cert } = c.clientAuthority.issue({ usage: 'client' })
      c.verdict = () => ({ certificate: Buffer.from(cert).toString('base64') })
    },
    'not for the key of this machine',
  ],
  [
    'signed nonsense',
    (c) => (c.verdict = () => ({ certificate: 'AAAA' })),
    'not for the key of this machine',
  ],
  ['knows nothing of it', (c) => (c.verdict = () => (c.requests.clear(), {})), 'has not approved'],
])('a cluster that %s is asked again', async (_, spoil, reason) => {
  const cluster = await new FakeCluster().start()
  const approve = cluster.verdict
  spoil(cluster)
  const { start, board } = machine()
  const joining = start({ server: cluster.url, token: tokenOf(cluster) })
  await until(() => board.part('joining')?.message?.includes(reason))
  cluster.verdict = approve
  await expect(joining).resolves.toBeDefined()
})

test("the data directory of a server is not an agent's, nor the other way round", async () => {
  const { dataDir, start, paths } = machine()
  mkdirSync(paths.pkiDir, { recursive: true })
  await expect(start()).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.stringContaining(
      `cannot run an agent in ${dataDir}: it is the data directory of a server`,
    ),
  })
  const cluster = await new FakeCluster().start()
  const other = machine()
  await other.start({ server: cluster.url, token: tokenOf(cluster) })
  await expect(
    loadAnyConfig({ flags: [{ name: 'data-dir', text: other.dataDir }], environment: {}, role: 'server' }),
  ).rejects.toMatchObject({ message: expect.stringContaining('it is the data directory of an agent') })
  // Without a command it is what it was.
  await expect(
    loadAnyConfig({ flags: [{ name: 'data-dir', text: other.dataDir }], environment: {} }),
  ).resolves.toMatchObject({ role: 'agent', nodeName: 'a', clusterDns: '10.8.0.10' })
})

test('servers are remembered: what the cluster said last, and where it was joined, unless another way is named', async () => {
  const cluster = await new FakeCluster().start()
  const { paths, start } = machine()
  await start({ server: cluster.url, token: tokenOf(cluster) })
  const given = { paths, log: silentLogger, tls: {} }
  const listed = ['https://192.0.2.1:6443', 'https://192.0.2.2:6443']
  rememberServers({ servers: listed, formerServers: ['https://192.0.2.3:6443'] }, given)
  const remembered = rememberedServers({ server: [] }, given)
  expect(remembered.endpoints).toEqual([...listed, cluster.url])
  expect(remembered.known).toEqual({ servers: listed, formerServers: ['https://192.0.2.3:6443'] })
  expect(rememberedServers({ server: ['https://192.0.2.9:6443'] }, given).endpoints).toContain(
    'https://192.0.2.9:6443',
  )
  expect(readNodeRecord(paths).joinedAt).toEqual(['https://192.0.2.9:6443'])
})

test('another version than before is looked at before anything is started, and one that is newer than a server is refused', async () => {
  const cluster = await new FakeCluster().start()
  const { paths, start } = machine()
  await start({ server: cluster.url, token: tokenOf(cluster) })
  cluster.version = 'v1.36.4+k8s.1'
  await expect(start()).rejects.toMatchObject({
    code: 'NODE_SKEW',
    message: 'cannot run this node: this machine has v1.37.1, and the servers v1.36.4+k8s.1',
    remedy: expect.stringContaining('upgrade those first'),
  })
  cluster.stop()
  expect(await start(), 'servers that are away').toBeDefined()
  expect(readNodeRecord(paths).version).toBeUndefined()
  cluster.version = 'v1.37.1'
  await cluster.start()
  await start()
  expect(readNodeRecord(paths).version).toBe('v1.37.1')
  const asked = cluster.asked.length
  await start()
  expect(cluster.asked).toHaveLength(asked)
})
