import { readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, defaultDataDir } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'

// Of three servers one goes on alone, as if the others were lost, and both come back with what they had.

let lan: Lan
let first: Cluster
let second: Cluster
let third: Cluster

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['one', 'two', 'three'].map((name) => Machine.create({ name })))
  const addresses: string[] = []
  for (const machine of machines) {
    addresses.push(await lan.join(machine))
    addTestImage(machine)
  }
  ;[first, second, third] = machines.map(
    (machine) => new Cluster(machine, { flags: ['--server-mode=ha'] }),
  ) as [Cluster, Cluster, Cluster]
  first.startDaemon({ flags: ['--cluster-init'] })
  await first.ready()
  const token = (await first.k8s(['token', 'create', '--role=server'])).stdout.trim()
  for (const server of [second, third]) {
    writeFileSync(server.machine.path('/run/token'), `${token}\n`)
    server.startDaemon({ flags: [`--server=https://${addresses[0]}:6443`, '--token-file=/run/token'] })
  }
  await Promise.all([second.ready(), third.ready()])
  await first.waitFor('all vote', async () => (await votersOf(first)).length === 3)
  await first.kubectl(['create', 'configmap', 'kept'])
})
afterAll(async () => {
  await Promise.all([third, second, first].map((server) => server?.[Symbol.asyncDispose]()))
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => first)

test('while the others are a cluster, none of them goes on alone', async () => {
  await stop(first)
  const { exitCode, stderr } = await first.k8s(['cluster', 'reset'], { check: false })
  expect([exitCode, stderr]).toEqual([
    1,
    expect.stringMatching(
      /^k8s: cannot reset the cluster: the member at https:\S+:2379 serves with a majority/,
    ),
  ])
  await second.kubectl(['create', 'configmap', 'unseen'])
})

test('told to, it goes on alone with what it had; a majority that serves stays a cluster, and says that there are two', async () => {
  const { stdout } = await first.k8s(['cluster', 'reset', '--abandon-others'])
  expect(stdout).toMatch(
    /^This server is the only one of its cluster, with all that it had\.\nNo members any more: /,
  )
  for (const server of [second, third]) expect(stdout).toContain(nameOf(server))
  first.startDaemon()
  await first.ready()
  expect(await votersOf(first)).toEqual([nameOf(first)])
  expect(await configMaps(first)).toContain('kept')
  expect(await configMaps(first)).not.toContain('unseen')
  await first.kubectl(['create', 'configmap', 'after'])
  await second.waitFor('it is told', async () =>
    (await second.status()).problems.some((problem) =>
      problem.includes('the cluster was reset on another server'),
    ),
  )
  await second.kubectl(['get', 'configmap', 'unseen'])
})

test('without a majority, a server that ran all along ends, puts aside what it had, and joins again', async () => {
  await stop(third)
  expect(await second.daemon.ended).toMatchObject({ exitCode: 1 })
  expect(second.daemon.log()).toContain('cannot go on: the cluster was reset on another server')
  second.startDaemon()
  await expectJoined(second)
})

test('one that comes back does so before its member starts', async () => {
  third.startDaemon()
  await expectJoined(third)
  expect(await votersOf(first)).toHaveLength(3)
})

test('with a snapshot it is the same: all go on with that', async () => {
  const [file = ''] = (await first.k8s(['snapshot', 'save'])).stdout.split('\n', 1)
  await first.kubectl(['create', 'configmap', 'later'])
  await Promise.all([first, second, third].map(stop))
  expect((await first.k8s(['cluster', 'reset', `--from-snapshot=${file}`])).stdout).toMatch(
    /^This server is the only one of its cluster, with revision \d+ of the snapshot; etcd goes on at \d+\.\n/,
  )
  first.startDaemon()
  await first.ready()
  second.startDaemon()
  await expectJoined(second)
  expect(await configMaps(second)).not.toContain('later')
})

async function expectJoined(server: Cluster): Promise<void> {
  await server.ready()
  expect(server.daemon.log()).toContain('what this one had in its etcd is put aside, and it joins again')
  await server.waitFor('it votes', async () => (await votersOf(first)).includes(nameOf(server)))
  const dir = server.machine.path(`${defaultDataDir}/replaced`)
  const [kept = ''] = readdirSync(dir).toReversed()
  expect(readdirSync(`${dir}/${kept}`).sort()).toEqual(['etcd', 'node.json'])
  const there = await configMaps(server)
  expect(there).toEqual(expect.arrayContaining(['kept', 'after']))
  expect(there).not.toContain('unseen')
}

async function stop(server: Cluster): Promise<void> {
  await server.k8s(['stop'])
  await server.daemon.ended
}

function nameOf({ machine }: Cluster): string {
  return machine.id.replace('k8s-test-', '')
}

async function votersOf(server: Cluster): Promise<string[]> {
  const { members } = JSON.parse((await server.k8s(['etcd', 'members', '-o', 'json'])).stdout) as {
    members: { name: string; role: string }[]
  }
  return members.filter(({ role }) => ['leader', 'follower'].includes(role)).map(({ name }) => name)
}

async function configMaps(server: Cluster): Promise<string[]> {
  const { stdout } = await server.kubectl(['get', 'configmaps', '-o', 'name'])
  return stdout
    .trim()
    .split('\n')
    .map((name) => name.replace('configmap/', ''))
}
