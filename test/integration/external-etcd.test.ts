import { readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findProblems, relistsOf } from '../soak/check.ts'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { EtcdCluster } from './harness/etcd.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { processNames, signalNamed } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'
import { startTraffic } from './harness/traffic.ts'

// A server on an etcd of three members that others run, whose members come and go; and a second server.

/** An etcd that nobody's cluster is in. */
const stranger = 'http://127.0.0.1:4379'

let lan: Lan
let url: string
let cluster: Cluster
let second: Cluster
let etcd: EtcdCluster

beforeAll(async () => {
  lan = await Lan.create()
  const [machine, other] = await Promise.all(['one', 'two'].map((name) => Machine.create({ name })))
  const address = await lan.join(machine!)
  await lan.join(other!)
  url = `https://${address}:6443`
  for (const one of [machine!, other!]) addTestImage(one)
  etcd = new EtcdCluster(machine!, 3, address)
  etcd.giveFiles(other!)
  ;[cluster, second] = [machine!, other!].map(
    (one) => new Cluster(one, { flags: ['--server-mode=ha', ...etcd.flags] }),
  ) as [Cluster, Cluster]
})
afterAll(async () => {
  await second?.[Symbol.asyncDispose]()
  await cluster?.[Symbol.asyncDispose]()
  await etcd?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => cluster)

test('an etcd that is away at the start is waited for, and shown with the reason', async () => {
  cluster.startDaemon()
  await cluster.waitFor('the wait is shown', async () => {
    const { stdout } = await cluster.k8s(['status'], { check: false })
    return /^etcd-proxy +running .*/m.test(stdout) && stdout.includes('ECONNREFUSED')
  })
  etcd.startAll()
  await cluster.ready()
  const { stdout } = await cluster.k8s(['status'])
  expect(stdout).toMatch(/^etcd-proxy +ready /m)
})

test.each<['is killed' | 'hangs', 'SIGKILL' | 'SIGSTOP']>([
  ['is killed', 'SIGKILL'],
  ['hangs', 'SIGSTOP'],
])(
  'when the member that is spoken to %s, another takes its place, and clients notice little',
  async (what, signal) => {
    const before = await restartsOfApiserver()
    await using traffic = startTraffic(cluster)
    await traffic.writing
    const index = await memberInUse()
    await etcd.signal(index, signal)
    await cluster.waitFor('another member is spoken to', async () => (await memberInUse()) !== index)
    await cluster.untilWritten(what.replace(' ', '-'))
    expect((await cluster.k8s(['status'], { check: false })).stdout).toMatch(
      new RegExp(`etcd-proxy: ${etcd.endpoint(index)} is away: `),
    )
    if (signal === 'SIGKILL') etcd.start(index)
    else await etcd.signal(index, 'SIGCONT')
    await cluster.ready()
    const seen = await traffic.stop()
    expect(findProblems(seen)).toEqual([])
    expect(relistsOf(seen)).toBe(0)
    // The controllers end by themselves when an answer fails while they start.
    expect(await restartsOfApiserver()).toBe(before)
  },
)

test('without a majority nothing is written, the states are clear, and all comes back', async () => {
  await etcd.signal(0, 'SIGKILL')
  await etcd.signal(1, 'SIGKILL')
  await cluster.waitFor('the missing leader is shown', async () =>
    /etcd-proxy: .*https:\/\/[0-9.]+:2579 has no leader: /.test(
      (await cluster.k8s(['status'], { check: false })).stdout,
    ),
  )
  const refused = await cluster.kubectl(['create', 'configmap', 'lost', '--request-timeout=5s'], {
    check: false,
  })
  expect(refused.exitCode).not.toBe(0)
  etcd.start(0, 1)
  await cluster.ready()
  await cluster.untilWritten('found')
  expect(cluster.daemon.ending).toBeUndefined()
})

test('the keys of another cluster are refused, with the way out', async () => {
  const { exitCode, stderr } = await cluster.exec(
    ['k8s', '--server-mode=ha', '--data-dir=/var/lib/other', '--https-listen-port=7443', ...etcd.flags],
    { check: false },
  )
  expect(exitCode).toBe(2)
  expect(stderr).toMatch(
    /^k8s: cannot use the etcd at https:\/\/[0-9.]+:2\d79: below \/registry it has a cluster whose keys are not in \/var\/lib\/other\. Name the --etcd-endpoints and the --etcd-prefix of this cluster/m,
  )
})

test("k8s db disarm lowers the etcd's alarm, which the status shows, and other commands say that they are not for it", async () => {
  expect((await cluster.k8s(['db', 'disarm'])).stdout).toBe('There is no alarm.\n')
  await etcd.raiseNoSpace()
  await cluster.waitFor('the alarm is shown', async () =>
    (await cluster.k8s(['status'], { check: false })).stdout.includes(
      'no writes: etcd has reached its quota (NOSPACE)',
    ),
  )
  expect((await cluster.k8s(['db', 'disarm'])).stdout).toBe('Lowered the alarm NOSPACE.\n')
  await cluster.untilWritten('after-the-alarm')
  expect((await cluster.k8s(['db', 'compact'])).stdout).toMatch(/^Compacted at revision \d+\.$/m)
  const { exitCode, stderr } = await cluster.k8s(['db', 'status'], { check: false })
  expect([exitCode, stderr]).toEqual([
    1,
    expect.stringContaining('the objects of this cluster are in an etcd that others run'),
  ])
})

test('k8s snapshot save takes what is below the prefix, and nothing else of that etcd', async () => {
  await etcd.put('/others/key', 'value')
  const { stdout } = await cluster.k8s(['snapshot', 'save', 'external'])
  const [path = '', said] = stdout.split('\n')
  expect(said).toMatch(/^revision \d+, \d+ keys, /)
  const { snapshots } = JSON.parse((await cluster.k8s(['snapshot', 'ls', '-o', 'json'])).stdout) as {
    snapshots: { path: string; cluster: string }[]
  }
  expect(snapshots).toMatchObject([{ path, cluster: expect.stringMatching(/^[0-9a-f]+$/) }])
  const has = async (key: string) => {
    const line = `zstd -dcq ${path} | tar -xO db/state.db | grep -qa ${key}`
    return (await cluster.exec(['sh', '-c', line], { check: false })).exitCode === 0
  }
  expect([await has('/registry/configmaps/default/found'), await has('/others/key')]).toEqual([true, false])
})

test.each<[string, () => readonly string[], string]>([
  [
    'another prefix',
    () => [...etcd.flags, '--etcd-prefix=/other'],
    'the cluster was created with etcd-prefix /registry',
  ],
  [
    'an etcd without the cluster',
    () => [`--etcd-endpoints=${stranger}`],
    `the etcd at ${stranger} has no cluster below /registry`,
  ],
  ['no etcd at all', () => [], 'without --etcd-endpoints: others run its etcd'],
])('a second server with %s is refused, and nothing is written', async (_, flags, message) => {
  await using other = second.machine.spawn([
    ...[`${repository}/build/peers/etcd`, '--data-dir=/run/stranger', '--log-level=error'],
    ...[`--listen-client-urls=${stranger}`, `--advertise-client-urls=${stranger}`],
  ])
  await giveToken()
  const command = ['k8s', '--data-dir=/run/other', '--v=0', '--server-mode=ha']
  const { exitCode, stderr } = await second.exec([...command, ...joinFlags(), ...flags()], { check: false })
  expect(stderr).toContain(message)
  expect(exitCode).toBe(2)
  expect(other.child.exitCode).toBeNull()
  expect(readdirSync(second.machine.path('/run/other'))).not.toContain('node.json')
})

test('a second server joins on the same etcd, and goes on when the first one is killed', async () => {
  await giveToken()
  second.startDaemon({ flags: joinFlags() })
  await second.ready()
  const { endpoints } = await second.get<{ endpoints: object[] }>('endpointslice', 'kubernetes')
  expect(endpoints).toHaveLength(2)
  await cluster.daemon.stop('SIGKILL')
  await signalNamed(cluster.machine, 'SIGKILL', processNames)
  await second.kubectl(['create', 'configmap', 'without-the-first'])
  cluster.startDaemon()
  await cluster.ready()
  await cluster.kubectl(['get', 'configmap', 'without-the-first'])
  await second.k8s(['stop'])
  await second.daemon.ended
})

test('an etcd without this cluster is refused, so that nobody takes it for an empty one', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await etcd.forget('/k8s.local/cluster/registry')
  const { exitCode, stderr } = await cluster.exec(['k8s', ...etcd.flags], { check: false })
  expect(exitCode).toBe(2)
  expect(stderr).toMatch(
    /^k8s: cannot use the etcd at .*: below \/registry it does not have the cluster of \/var\/lib\/k8s\. /m,
  )
})

const joinFlags = () => [`--server=${url}`, '--token-file=/run/token']

async function giveToken(): Promise<void> {
  const { stdout: token } = await cluster.k8s(['token', 'create', '--role=server'])
  writeFileSync(second.machine.path('/run/token'), token)
}

async function restartsOfApiserver(): Promise<number | undefined> {
  return (await cluster.status()).components.find(({ name }) => name === 'kube-apiserver')?.restarts
}

/** Which member the API server's connections go to. */
async function memberInUse(): Promise<number> {
  for (const [index] of etcd.endpoints.entries()) {
    const port = 2379 + 100 * index
    const { stdout: lines } = await cluster.exec(['ss', '-Htnp', 'state', 'established', `dport = :${port}`])
    // One is the question how it is.
    if (lines.split('\n').filter((line) => line.includes(`pid=${cluster.daemon.pid},`)).length > 1)
      return index
  }
  throw new Error('no member is spoken to')
}
