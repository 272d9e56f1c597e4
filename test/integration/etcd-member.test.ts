import { afterAll, beforeAll, expect, test } from 'vitest'
import { findProblems, relistsOf } from '../soak/check.ts'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Machine } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { startTraffic } from './harness/traffic.ts'

// A first server with a member of etcd of its own.

const kind = '--server-mode=ha'
const quotaBytes = 14 * 1024 * 1024
let cluster: Cluster

beforeAll(async () => {
  const machine = await Machine.create({ name: 'etcd-member' })
  addTestImage(machine)
  cluster = new Cluster(machine, {})
  cluster.startDaemon({ flags: [kind, '--cluster-init', `--quota-backend-bytes=${quotaBytes}`] })
  await cluster.ready()
})
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]()
})
reportFailures(() => cluster)

test('it is a cluster as any other, with nothing to complain of', async () => {
  await cluster.k8s(['status', '--wait', '--timeout=1m'])
  expect((await cluster.status()).problems).toEqual([])
  // Its controllers wait until they lead.
  await cluster.waitFor('the service account of pods', () =>
    cluster.kubectl(['get', 'serviceaccount', 'default']),
  )
  await cluster.runPods(pod('before', sleepForever))
  const { spec } = await cluster.get<{ spec: { holderIdentity: string } }>(
    'lease',
    '-n',
    'kube-system',
    'k8s-server',
  )
  expect(spec.holderIdentity).toBe(cluster.machine.hostName)
  const { components } = await cluster.status()
  expect(components.slice(0, 2).map(({ name, state }) => [name, state])).toEqual([
    ['etcd', 'ready'],
    ['etcd-proxy', 'ready'],
  ])
})

test('nobody else can read its files, or is let in', async () => {
  const { stdout: modes } = await cluster.exec([
    'find',
    '/var/lib/k8s/etcd',
    ...['(', '-type', 'd', '!', '-perm', '700', '-o', '-type', 'f', '!', '-perm', '600', ')'],
  ])
  expect(modes).toBe('')
  const { stdout } = await cluster.exec(['ss', '-Hltn'])
  const listening = stdout.split('\n').flatMap((line) => line.split(/\s+/)[3] ?? [])
  const peers = listening.find((address) => address.endsWith(':2380')) ?? ''
  // Where the other servers come, too.
  const clients = peers.replace('2380', '2379')
  expect(listening.filter((address) => /:23(79|81)$/.test(address)).sort()).toEqual(
    ['127.0.0.1:2379', '127.0.0.1:2381', clients].sort(),
  )
  const pki = '/var/lib/k8s/pki'
  const curl = (address: string, ...files: string[]) =>
    cluster.exec(['curl', '-s', '--cacert', `${pki}/etcd-ca.crt`, ...files, `https://${address}/version`], {
      check: false,
    })
  const show = (name: string) => ['--cert', `${pki}/${name}.crt`, '--key', `${pki}/${name}.key`]
  expect((await curl('127.0.0.1:2379', ...show('etcd-client'))).stdout).toContain('"etcdserver":"3.')
  for (const [address, ...files] of [
    ['127.0.0.1:2379'],
    [peers],
    // A client of the API, and a client of etcd among peers.
    [clients],
    [clients, ...show('admin-client')],
    [peers, ...show('etcd-client')],
  ] as const) {
    expect((await curl(address, ...files)).stdout).toBe('')
  }
})

test.each<['killed' | 'stopped', 'SIGKILL' | 'SIGSTOP']>([
  ['killed', 'SIGKILL'],
  ['stopped', 'SIGSTOP'],
])(
  'when it is %s, it comes back by itself, nothing that was acknowledged is lost, and the API server goes on',
  async (_, signal) => {
    const before = await component('kube-apiserver')
    await using traffic = startTraffic(cluster)
    await traffic.writing
    const { pid } = await component('etcd')
    await cluster.exec(['kill', `-${signal}`, String(pid)])
    await cluster.waitFor('another process is ready', async () => {
      const { pid: now, state } = await component('etcd')
      return now !== pid && state === 'ready'
    })
    await cluster.untilWritten(signal.toLowerCase())
    await cluster.ready()
    const seen = await traffic.stop()
    expect(findProblems(seen)).toEqual([])
    expect(relistsOf(seen)).toBe(0)
    expect(await component('kube-apiserver')).toMatchObject({ pid: before.pid, restarts: before.restarts })
  },
)

test('when its quota is reached, that is told, and once objects were deleted all goes on by itself', async () => {
  const script =
    'head -c 900000 /dev/zero | tr "\\0" x >/tmp/big; for n in $(seq 40); do k8s kubectl create configmap big-$n --from-file=/tmp/big || exit 7; done'
  expect((await cluster.exec(['sh', '-c', script], { check: false })).exitCode).toBe(7)
  // What is free, or history, is given back first, and may be written again before anybody has seen the alarm.
  let more = 40
  const isTold = async () => {
    await cluster.kubectl(['create', 'configmap', `big-${++more}`, '--from-file=/tmp/big'], { check: false })
    const { parts } = await cluster.status()
    const { message = '' } = parts.find(({ name }) => name === 'etcd-care') ?? {}
    return /^cannot take writes: etcd has reached its quota, and \d+ MiB of 14 MiB are in use; delete/.test(
      message,
    )
  }
  // Each time it is looked at, a little less is left.
  await cluster.waitFor('what is in use is told', isTold, { timeoutMs: 150_000 })
  await cluster.waitFor('it is told', async () => {
    const { problems } = await cluster.status()
    return problems.some((problem) => problem.includes('no writes: etcd has reached its quota (NOSPACE)'))
  })
  await cluster.exec([
    'sh',
    '-c',
    'k8s kubectl get configmaps -o name | grep /big- | xargs k8s kubectl delete',
  ])
  await cluster.untilWritten('after-no-space')
  await cluster.ready()
  await cluster.waitFor(
    'nothing is told any more',
    async () => (await cluster.status()).problems.length === 0,
  )
  const { bytes } = JSON.parse((await cluster.k8s(['etcd', 'members', '-o', 'json'])).stdout) as {
    bytes: number
  }
  expect(bytes).toBeLessThan(quotaBytes / 2)
})

test('k8s etcd shows its members, and defragments', async () => {
  const { members, ...own } = JSON.parse((await cluster.k8s(['etcd', 'members', '-o', 'json'])).stdout)
  expect(members).toEqual([
    {
      id: expect.stringMatching(/^[0-9a-f]+$/),
      name: cluster.machine.hostName,
      role: 'leader',
      isThisServer: true,
      peerUrls: [expect.stringMatching(/^https:.*:2380$/)],
      clientUrls: [expect.stringMatching(/^https:.*:2379$/)],
    },
  ])
  expect(own).toMatchObject({ version: expect.stringMatching(/^3\./), quotaBytes, errors: [] })
  expect((await cluster.k8s(['etcd', 'members'])).stdout).toMatch(/^ID .*\n[0-9a-f]+ +\S+ +leader +https:/)
  expect((await cluster.k8s(['etcd', 'defrag'])).stdout).toMatch(
    /^The database of etcd had [\d.]+ MiB, and has [\d.]+ MiB\.$/m,
  )
})

test('a restart without any flag but the mode goes on with it', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  cluster.startDaemon({ flags: [kind] })
  await cluster.ready()
  await cluster.kubectl(['get', 'configmap', 'sigkill'])
  expect((await cluster.pod('before')).status.phase).toBe('Running')
})

test('what contradicts it is refused, and what has been done already is told', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  const refused = await cluster.exec(['k8s', kind, '--etcd-endpoints=http://127.0.0.1:2379'], {
    check: false,
  })
  expect([refused.exitCode, refused.stderr]).toEqual([
    2,
    'k8s: cannot use --etcd-endpoints=http://127.0.0.1:2379: the servers have an etcd of their own (cluster-init true, fixed in /var/lib/k8s/cluster.json)\n',
  ])
  cluster.startDaemon({ flags: [kind, '--cluster-init'] })
  await cluster.ready()
  expect(cluster.daemon.log()).toContain(
    '--cluster-init does nothing: the cluster of /var/lib/k8s is there already, and goes on',
  )
})

test('a snapshot of it is one that a server alone goes on with, Secrets and all', async () => {
  await cluster.kubectl(['create', 'secret', 'generic', 'kept', '--from-literal=word=xyzzy'])
  const file = (await cluster.k8s(['snapshot', 'save'])).stdout.split('\n')[0] ?? ''
  const refused = await cluster
    .k8s(['stop'])
    .then(() => cluster.k8s(['snapshot', 'restore', file], { check: false }))
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining('k8s cluster reset')])
  await cluster.daemon.ended
  const single = new Cluster(cluster.machine, { env: { K8S_DATA_DIR: '/var/lib/single' } })
  await single.k8s(['snapshot', 'restore', file])
  single.startDaemon()
  await single.ready()
  const { data } = await single.get<{ data: Record<string, string> }>('secret', 'kept')
  expect(data).toEqual({ word: Buffer.from('xyzzy').toString('base64') })
  await single.kubectl(['get', 'configmap', 'sigkill'])
  await single.k8s(['stop'])
  await single.daemon.ended
  cluster.startDaemon({ flags: [kind] })
  await cluster.ready()
})

test('data that are lost or damaged are told, and nothing is made in their place', async () => {
  const etcdSays = (what: string | RegExp) =>
    cluster.waitFor(`etcd says ${what}`, async () => {
      const { problems } = await cluster.status()
      return problems.some((problem) => problem.startsWith('etcd') && problem.match(what) !== null)
    })
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await cluster.exec(['mv', '/var/lib/k8s/etcd', '/var/lib/k8s/aside'])
  cluster.startDaemon({ flags: [kind] })
  await etcdSays(/cannot find the data of etcd in \/var\/lib\/k8s\/etcd/)
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await cluster.exec(['rm', '-rf', '/var/lib/k8s/etcd'])
  await cluster.exec(['cp', '-a', '/var/lib/k8s/aside', '/var/lib/k8s/etcd'])
  const database = '/var/lib/k8s/etcd/member/snap/db'
  await cluster.exec(['dd', 'if=/dev/zero', `of=${database}`, 'bs=4096', 'count=8', 'conv=notrunc'])
  const before = (await cluster.exec(['sha256sum', database])).stdout
  cluster.startDaemon({ flags: [kind] })
  await etcdSays(/failed to open database: invalid database/)
  expect((await cluster.exec(['sha256sum', database])).stdout).toBe(before)
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await cluster.exec(['rm', '-rf', '/var/lib/k8s/etcd'])
  await cluster.exec(['mv', '/var/lib/k8s/aside', '/var/lib/k8s/etcd'])
  cluster.startDaemon({ flags: [kind] })
  await cluster.ready()
  await cluster.kubectl(['get', 'configmap', 'sigkill'])
})

async function component(name: string) {
  const found = (await cluster.status()).components.find((one) => one.name === name)
  if (found === undefined) throw new Error(`there is no ${name}`)
  return found
}
