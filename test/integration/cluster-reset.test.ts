import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Rig } from '../soak/rig.ts'
import { type Cluster, defaultDataDir } from './harness/cluster.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// Of three servers one goes on alone, as if the others were lost, and both come back with what they had. An agent goes along.

let rig: Rig
let first: Cluster
let second: Cluster
let third: Cluster
let agent: Cluster
/** Of the container of the agent's pod. */
let container: string | undefined

beforeAll(async () => {
  rig = await Rig.create({ name: 'reset', servers: 3, agents: 1 })
  ;[first, second, third] = rig.servers as [Cluster, Cluster, Cluster]
  agent = rig.agents[0]!
  await first.waitFor('all vote', async () => (await votersOf(first)).length === 3)
  await first.kubectl(['create', 'configmap', 'kept'])
  await first.runPods(pod('kept', sleepForever, { spec: { nodeName: nameOf(agent) } }))
  container = (await first.pod('kept')).status.containerStatuses?.[0]?.containerID
})
afterAll(() => rig?.[Symbol.asyncDispose]())
reportFailures(() => first)

test('while the others are a cluster, none of them goes on alone', async () => {
  await rig.stop(first)
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
  rig.restart(first)
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
  await rig.stop(third)
  expect(await second.daemon.ended).toMatchObject({ exitCode: 1 })
  expect(second.daemon.log()).toContain('cannot go on: the cluster was reset on another server')
  // Nobody has told it.
  await expectAgentGoesOn()
  rig.restart(second)
  await expectJoined(second)
})

test('one that comes back does so before its member starts', async () => {
  rig.restart(third)
  await expectJoined(third)
  expect(await votersOf(first)).toHaveLength(3)
})

test('with a snapshot it is the same: all go on with that, and further machines join', async () => {
  const [file = ''] = (await first.k8s(['snapshot', 'save'])).stdout.split('\n', 1)
  await first.kubectl(['create', 'configmap', 'later'])
  await first.runPods(pod('later', sleepForever, { spec: { nodeName: nameOf(agent) } }))
  await Promise.all([first, second, third].map((server) => rig.stop(server)))
  expect((await first.k8s(['cluster', 'reset', `--from-snapshot=${file}`])).stdout).toMatch(
    /^This server is the only one of its cluster, with revision \d+ of the snapshot; etcd goes on at \d+\.\n/,
  )
  rig.restart(first)
  await first.ready()
  rig.restart(second)
  const joining = [await rig.add('server', first), await rig.add('agent', first)]
  await expectAgentGoesOn()
  await first.waitFor('what the cluster does not know ends', async () => {
    const { stdout } = await agent.k8s(['crictl', 'ps', '-q', '--name=^later$'])
    return stdout.trim() === ''
  })
  await expectJoined(second)
  expect(await configMaps(second)).not.toContain('later')
  for (const node of joining) await node.ready()
})

/** Its pod has not noticed anything, and another one runs beside it. */
async function expectAgentGoesOn(): Promise<void> {
  await agent.ready()
  await first.waitFor('its Node is Ready', async () => {
    const { stdout } = await first.kubectl(['get', 'node', nameOf(agent), '--no-headers'])
    return /\sReady\s/.test(stdout)
  })
  expect((await first.pod('kept')).status.containerStatuses).toMatchObject([
    { containerID: container, restartCount: 0 },
  ])
  // By the certificate that it had.
  expect(await first.shell('kept', 'hostname')).toBe('kept\n')
  await first.runPods(pod('new', sleepForever, { spec: { nodeName: nameOf(agent) } }))
  await first.kubectl(['delete', 'pod', 'new'])
}

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

function nameOf({ machine }: Cluster): string {
  return machine.hostName
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
