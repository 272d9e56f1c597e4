import { copyFileSync } from 'node:fs'
import { basename } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findProblems } from '../soak/check.ts'
import { describeFault, type Fault } from '../soak/faults.ts'
import { formatReport, type Period } from '../soak/report.ts'
import { Rig } from '../soak/rig.ts'
import { Cluster } from './harness/cluster.ts'
import { Machine } from './harness/machine.ts'
import { deployment, pod, sleepForever, webServer } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// Three servers and two agents, each of which fails in every way that there is, under clients that write, watch and read all the time.

const nodePort = 30_888
/** For eleven faults, each of which is recovered from, on a machine that is busy. */
const faultsLimitMs = 15 * 60_000
let rig: Rig

beforeAll(async () => {
  rig = await Rig.create({ name: 'faults', servers: 3, agents: 2 })
})
afterAll(async () => {
  await rig?.[Symbol.asyncDispose]()
})
reportFailures(() => rig)

test('no acknowledged write is lost, no read is stale and no watch has a gap, whatever one server suffers', {
  timeout: faultsLimitMs,
}, async () => {
  await using traffic = rig.startTraffic()
  await traffic.writing
  const periods: Period[] = []
  const suffer = async (kind: Fault['kind'], server: number, holdMs: number) =>
    periods.push(await rig.inject({ kind, servers: [server], holdMs, calmMs: 500 }))
  await suffer('kill-etcd', await leader(), 500)
  await suffer('hang-etcd', await leader(), 4_000)
  await suffer('kill-apiserver', 0, 500)
  await suffer('hang-apiserver', 1, 4_000)
  await suffer('kill-daemon', 2, 1_000)
  await suffer('hang-daemon', 0, 4_000)
  await suffer('cut', await leader(), 5_000)
  await suffer('cut-in', 1, 5_000)
  await suffer('cut-out', await leader(), 5_000)
  await suffer('crash', 2, 1_000)
  await suffer('stop', 0, 2_000)
  const seen = await traffic.stop()
  console.log(formatReport(seen, periods))
  expect(findProblems(seen)).toEqual([])
})

test('with two of three lost nothing is written, the states are clear, and all comes back', async () => {
  const alive = rig.server(0)
  const fault: Fault = { kind: 'crash-majority', servers: [1, 2], holdMs: 0, calmMs: 0 }
  await using traffic = rig.startTraffic()
  await traffic.writing
  await rig.begin(fault)
  await alive.waitFor('the missing leader is shown', async () => {
    const { problems } = await alive.status()
    return problems.some((problem) => problem.includes('has no leader'))
  })
  const lostMs = Date.now()
  const refused = await alive.kubectl(['create', 'configmap', 'lost', '--request-timeout=3s'], {
    check: false,
  })
  expect(refused.exitCode).not.toBe(0)
  const backMs = Date.now()
  await rig.end(fault)
  await rig.ready()
  await alive.untilWritten('found')
  const seen = await traffic.stop()
  console.log(formatReport(seen, [{ title: describeFault(fault), startMs: lostMs, endMs: Date.now() }]))
  expect(findProblems(seen)).toEqual([])
  const inBetween = seen.writes.filter(
    ({ outcome, startMs, endMs }) => outcome === 'done' && startMs > lostMs && endMs < backMs,
  )
  expect(inBetween).toEqual([])
})

test('a Deployment answers through a restart of all nodes, one after the other', async () => {
  const first = rig.server(0)
  const ports = [{ port: 80, targetPort: 8080, nodePort }]
  await first.apply(deployment('web', webServer, { replicas: 3 }), {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { type: 'NodePort', selector: { app: 'web' }, ports },
  })
  await first.kubectl(['rollout', 'status', 'deployment/web', '--timeout=90s'], { timeoutMs: 100_000 })
  await first.waitFor('it answers', async () => (await ask(rig.nodes)).answered)
  const end = new AbortController()
  const asking = keepAsking(end.signal)
  for (const node of rig.nodes) {
    await rig.stop(node)
    rig.restart(node)
    await node.ready()
  }
  end.abort()
  const { turns, failures, unanswered } = await asking
  console.log(`${turns} questions to a Deployment, ${failures} of them to another node after the first`)
  expect(unanswered).toEqual([])
})

test('an agent outlives the server by which it joined, with all others restarted under it', async () => {
  const [joined, ...others] = rig.servers as [Cluster, Cluster, Cluster]
  const [second] = others
  const [agent] = rig.agents as [Cluster]
  await rig.stop(joined)
  for (const server of others) {
    await rig.stop(server)
    rig.restart(server)
    await server.ready()
  }
  await agent.ready()
  const nodeName = agent.machine.hostName
  await second.runPods(pod('outlived', `echo hello; ${sleepForever}`, { spec: { nodeName } }))
  expect((await second.kubectl(['logs', 'outlived'])).stdout).toBe('hello\n')
  rig.restart(joined)
  await rig.ready()
})

test('a snapshot that a server took goes on as a new cluster', async () => {
  const second = rig.server(1)
  await second.kubectl(['create', 'secret', 'generic', 'kept', '--from-literal=word=xyzzy'])
  const file = (await second.k8s(['snapshot', 'save'])).stdout.split('\n')[0] ?? ''
  await using machine = await Machine.create({ name: 'faults-new' })
  const copy = `/run/${basename(file)}`
  copyFileSync(second.machine.path(file), machine.path(copy))
  const other = new Cluster(machine, {})
  await other.k8s(['snapshot', 'restore', copy])
  other.startDaemon()
  await other.ready()
  const { data } = await other.get<{ data: Record<string, string> }>('secret', 'kept')
  expect(data).toEqual({ word: Buffer.from('xyzzy').toString('base64') })
  await other.kubectl(['get', 'configmap', 'found'])
})

/** The place of the server whose member of etcd leads. */
async function leader(): Promise<number> {
  const { members } = JSON.parse((await rig.server(0).k8s(['etcd', 'members', '-o', 'json'])).stdout) as {
    members: { name: string; role: string }[]
  }
  const name = members.find(({ role }) => role === 'leader')?.name
  return rig.servers.findIndex(({ machine }) => machine.id === `k8s-test-${name}`)
}

/** One question to the Deployment: to the first of the nodes, and if it does not answer to the next. */
async function ask(nodes: readonly Cluster[]): Promise<{ answered: boolean; failures: number }> {
  for (const [failures, node] of nodes.entries()) {
    const url = `http://${rig.addresses.get(node)}:${nodePort}`
    const answered = await rig.lan.exec(['curl', '-sf', '-m', '2', url]).then(
      () => true,
      () => false,
    )
    if (answered) return { answered, failures }
  }
  return { answered: false, failures: nodes.length }
}

async function keepAsking(signal: AbortSignal) {
  const seen = { turns: 0, failures: 0, unanswered: [] as string[] }
  while (!signal.aborted) {
    const at = seen.turns % rig.nodes.length
    const { answered, failures } = await ask([...rig.nodes.slice(at), ...rig.nodes.slice(0, at)])
    seen.turns++
    seen.failures += failures
    if (!answered) seen.unanswered.push(new Date().toISOString())
  }
  return seen
}
