import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findProblems } from '../soak/check.ts'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { nodesWithFigures } from './harness/figures.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'
import { startTraffic } from './harness/traffic.ts'

// Three servers with an etcd of their own, three machines on one network, with addresses of both families.

interface Members {
  readonly members: readonly { readonly name: string; readonly role: string }[]
}

const ranges = ['--cluster-cidr=10.244.0.0/16,fd00:244::/48', '--service-cidr=10.96.0.0/12,fd00:96::/112']

interface NodeOfBoth {
  readonly spec: { readonly podCIDRs: readonly string[] }
  readonly status: { readonly addresses: readonly { readonly type: string }[] }
}

let lan: Lan
let servers: Cluster[] = []
const addresses = new Map<Cluster, string>()
let url: string
let token: string
const joinFlags = () => [`--server=${url}`, '--token-file=/run/token']

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['one', 'two', 'three'].map((name) => Machine.create({ name })))
  servers = machines.map((machine) => new Cluster(machine, { flags: ['--server-mode=ha'] }))
  for (const server of servers) {
    addresses.set(server, await lan.join(server.machine))
    await lan.joinSix(server.machine)
    addTestImage(server.machine)
  }
  url = `https://${addresses.get(servers[0]!)}:6443`
  servers[0]!.startDaemon({ flags: ['--cluster-init', ...ranges] })
  await servers[0]!.ready()
})
afterAll(async () => {
  await Promise.all(servers.toReversed().map((server) => server[Symbol.asyncDispose]()))
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => servers.at(-1)!)

const nameOf = ({ machine }: Cluster) => machine.hostName
const record = ({ machine }: Cluster) => machine.read('/var/lib/k8s/node.json')
const has = ({ machine }: Cluster, path: string) => existsSync(machine.path(path))

const membersOf = async (server: Cluster) =>
  (JSON.parse((await server.k8s(['etcd', 'members', '-o', 'json'])).stdout) as Members).members

const component = async (server: Cluster, name: string) =>
  (await server.status()).components.find((one) => one.name === name)!

test('two servers join with one token at once, one of them killed again and again: all have a member that votes', async () => {
  const [first, second, third] = servers as [Cluster, Cluster, Cluster]
  token = (await first.k8s(['token', 'create', '--role=server'])).stdout.trim()
  for (const { machine } of [second, third]) writeFileSync(machine.path('/run/token'), `${token}\n`)
  const joined = Promise.all([
    (async () => {
      second.startDaemon({ flags: joinFlags() })
      await second.ready()
    })(),
    (async () => {
      // Noted, then with the keys, then with a member that has been added and has begun.
      for (const path of ['node.json', 'cluster.json', 'etcd/member/wal']) {
        third.startDaemon({ flags: joinFlags() })
        await third.waitFor(path, () => Promise.resolve(has(third, `/var/lib/k8s/${path}`)), {
          intervalMs: 5,
        })
        await third.daemon.stop('SIGKILL')
        expect(record(third)).toContain('"isJoining": true')
      }
      // Once it has the keys it needs neither of them.
      third.startDaemon()
      await third.ready()
    })(),
  ])
  await joined
  const rolesNow = async () => (await membersOf(third)).map(({ role }) => role).sort()
  await third.waitFor('all vote', async () => (await rolesNow()).join() === 'follower,follower,leader')
  expect((await membersOf(third)).map(({ name }) => name).sort()).toEqual(servers.map(nameOf).sort())
  for (const server of servers) {
    const { stdout } = await server.kubectl(['get', 'nodes', '-o', 'name'])
    expect(stdout.trim().split('\n')).toHaveLength(3)
    await server.waitFor('nothing is told', async () => (await server.status()).problems.length === 0)
    await server.waitFor('nothing is noted', () => Promise.resolve(!record(server).includes('isJoining')))
  }
  const { endpoints } = await second.get<{ endpoints: object[] }>('endpointslice', 'kubernetes')
  expect(endpoints).toHaveLength(3)
  const { items } = await second.get<{ items: NodeOfBoth[] }>('nodes')
  for (const { spec, status } of items) {
    const ips = status.addresses.filter(({ type }) => type === 'InternalIP')
    expect([spec.podCIDRs.length, ips.length]).toEqual([2, 2])
  }
})

test('kubectl top tells of all nodes, whichever server is asked', async () => {
  for (const server of servers) expect(await nodesWithFigures(server, 3)).toHaveLength(3)
})

test('the keys of the cluster open for who has the token, and for nobody else', async () => {
  const [first, second] = servers as [Cluster, Cluster]
  const [, , , bootstrap = '', key = ''] = token.split('-')
  const [id = ''] = bootstrap.split('.')
  const agentToken = (await first.k8s(['token', 'create', '--role=agent'])).stdout.trim()
  const read = async (bearer: string, name: string) => {
    const target = `${url}/api/v1/namespaces/kube-system/secrets/${name}`
    const ca = ['--cacert', '/var/lib/k8s/pki/server-ca.crt', '--connect-to', '::127.0.0.1:6443']
    const command = ['curl', '-s', '-o', '/run/answer', '-w', '%{http_code}', ...ca]
    return (await first.exec([...command, '-H', `Authorization: Bearer ${bearer}`, target])).stdout
  }
  expect(await read(bootstrap, `k8s-server-bundle-${id}`)).toBe('200')
  expect(first.machine.read('/run/answer')).not.toContain('PRIVATE')
  expect(await read(bootstrap, `bootstrap-token-${id}`)).toBe('403')
  expect(await read(agentToken.split('-')[3] ?? '', `k8s-server-bundle-${id}`)).toBe('403')
  // Neither is it written down anywhere, nor shown by a process.
  expect((await first.kubectl(['get', 'secrets', '-A', '-o', 'json'])).stdout).not.toContain(key)
  for (const server of [first, second]) {
    expect(server.daemon.logTail(10_000)).not.toContain(key)
    expect((await server.exec(['ps', '-eo', 'args'])).stdout).not.toContain(key)
    const found = await server.exec(['grep', '-rlF', key, '/var/lib/k8s', '--include=*.json'], {
      check: false,
    })
    expect(found.stdout).toBe('')
  }
  expect((await first.k8s(['token', 'list'])).stdout).toMatch(new RegExp(`^${id} +server `, 'm'))
})

test.each<[string, () => readonly string[], string]>([
  ['the name of another Node', () => [`--node-name=${nameOf(servers[1]!)}`], 'the cluster has a Node two-'],
  [
    'another range of Services',
    () => ['--service-cidr=10.50.0.0/16'],
    'the cluster was created with service-cidr 10.96.0.0/12',
  ],
  [
    'another network',
    () => ['--network-backend=host-gw'],
    'by network-backend vxlan, and this one would by host-gw',
  ],
  ['a server that creates a cluster', () => ['--cluster-init'], 'it creates a cluster, and --server'],
  ['the token of an agent', () => ['--token-file=/run/agent-token'], 'it is one for an agent'],
])('%s is refused with one line, and nothing is written', async (_, flags, message) => {
  const third = servers[2]!
  writeFileSync(third.machine.path('/run/agent-token'), token.replace('-server-', '-agent-').slice(0, -65))
  const command = ['k8s', '--server-mode=ha', '--data-dir=/run/other', '--node-name=other', '--v=0']
  const { exitCode, stderr } = await third.exec([...command, ...joinFlags(), ...flags()], { check: false })
  expect(stderr).toContain(message)
  expect(stderr.split('\n').filter((line) => line.startsWith('k8s: cannot'))).toHaveLength(1)
  expect(exitCode).toBe(2)
  const left = has(third, '/run/other') ? readdirSync(third.machine.path('/run/other')) : []
  for (const name of ['node.json', 'pki', 'cluster.json', 'db']) expect(left).not.toContain(name)
})

test('the keys of Secrets are rotated on all servers at once, and tokens with those of before are taken back', async () => {
  const [first, second] = servers as [Cluster, Cluster]
  await first.kubectl(['create', 'secret', 'generic', 'word', '--from-literal=word=hello'])
  const { stdout } = await second.k8s(['secrets-encryption', 'rotate'], { timeoutMs: 150_000 })
  expect(stdout).toContain('Took 1 tokens for servers back')
  expect(stdout).toMatch(/All \d+ Secrets are encrypted with key-2\.\n$/)
  const files = servers.map(({ machine }) => machine.read('/var/lib/k8s/pki/encryption-config.yaml'))
  expect(new Set(files).size).toBe(1)
  for (const server of servers) {
    const read = await server.kubectl(['get', 'secret', 'word', '-o', 'jsonpath={.data.word}'])
    expect(read.stdout).toBe(Buffer.from('hello').toString('base64'))
  }
  token = (await second.k8s(['token', 'create', '--role=server'])).stdout.trim()
  for (const { machine } of servers) writeFileSync(machine.path('/run/token'), `${token}\n`)
})

test('while its own etcd is away a server goes on with those of the others, and comes back to its own', async () => {
  const second = servers[1]!
  const { pid } = await component(second, 'kube-apiserver')
  await using traffic = startTraffic(second)
  await traffic.writing
  const etcd = await component(second, 'etcd')
  // Stopped, so that it does not come back at once.
  await second.exec(['kill', '-STOP', String(etcd.pid)])
  await second.waitFor('it is missed', async () =>
    (await second.status()).problems.some((problem) => problem.includes('https://127.0.0.1:2379 is away')),
  )
  await second.kubectl(['create', 'configmap', 'without-its-own'])
  await second.exec(['kill', '-CONT', String(etcd.pid)])
  await second.waitFor('nothing is told', async () => (await second.status()).problems.length === 0)
  expect(findProblems(await traffic.stop())).toEqual([])
  expect(await component(second, 'kube-apiserver')).toMatchObject({ pid })
})

test('stopped, a server gives back what it led; one that starts while it is away is what it was', async () => {
  const holder = async (by: Cluster) => {
    const lease = ['-n', 'kube-system', 'lease', 'kube-controller-manager']
    return (await by.get<{ spec: { holderIdentity: string } }>(...lease)).spec.holderIdentity
  }
  const leader = await holder(servers[0]!)
  const first = servers.find((server) => leader.startsWith(`${nameOf(server)}_`))!
  const [second, third] = servers.filter((server) => server !== first) as [Cluster, Cluster]
  await first.k8s(['stop'])
  await first.daemon.ended
  expect(await holder(third)).not.toBe(leader)
  await second.k8s(['stop'])
  await second.daemon.ended
  second.startDaemon()
  await second.ready()
  expect((await membersOf(second)).map(({ name }) => name).sort()).toEqual(servers.map(nameOf).sort())
  await second.waitFor('who is away is named', async () => {
    const { problems } = await second.status()
    return problems.some((problem) =>
      problem.startsWith(`etcd-proxy: https://${addresses.get(first)}:2379 is away`),
    )
  })
  first.startDaemon()
  await first.ready()
})

test('a server that leaves takes its member along, does not come back with what it had, and may join anew', async () => {
  const [first, , third] = servers as [Cluster, Cluster, Cluster]
  const { stdout } = await third.k8s(['etcd', 'leave'])
  expect(stdout).toContain(`${nameOf(third)} has left the etcd of the servers, and does not run any more.`)
  await third.daemon.ended
  expect((await membersOf(first)).map(({ name }) => name)).not.toContain(nameOf(third))
  expect((await third.k8s(['etcd', 'leave'])).stdout).toContain('has left the etcd of the servers already')
  const { exitCode, stderr } = await third.k8s(['--server-mode=ha', ...joinFlags()], { check: false })
  expect(stderr).toContain('cannot start: this server has left the cluster')
  expect(exitCode).toBe(2)
  await first.k8s(['node', 'remove', nameOf(third)])
  await third.k8s(['stop', '--pods'], { check: false })
  await third.k8s(['reset', '--force'])
  addTestImage(third.machine)
  third.startDaemon({ flags: joinFlags() })
  await third.ready()
  expect(await membersOf(first)).toHaveLength(3)
})

test('one that goes must leave the others a majority', async () => {
  const [first, second, third] = servers as [Cluster, Cluster, Cluster]
  await third.k8s(['stop'])
  await third.daemon.ended
  const { exitCode, stderr } = await second.k8s(['etcd', 'leave'], { check: false })
  expect(stderr).toContain(
    `the others would have no majority: ${nameOf(third)} does not answer, and of 2 it takes 2`,
  )
  expect(exitCode).toBe(1)
  expect(record(second)).not.toContain('hasLeft')
  await second.ready()
  expect(await membersOf(first)).toHaveLength(3)
})

test('with the Node of a server that is gone its member goes, too', async () => {
  const [first, second, third] = servers as [Cluster, Cluster, Cluster]
  await first.k8s(['node', 'remove', nameOf(third), '--force'])
  await second.waitFor('it is no member any more', async () => (await membersOf(second)).length === 2)
  expect((await membersOf(first)).map(({ name }) => name).sort()).toEqual([first, second].map(nameOf).sort())
  await second.waitFor('nobody is missed', async () => (await second.status()).problems.length === 0)
})
