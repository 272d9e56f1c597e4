/**
 * `make bench-scale`: a server of one, to which hollow nodes join step by step, with pods on them, until the API's service
 * levels break (latencies.ts) or the machine ends; and the same on an etcd of one member in place of the datastore.
 *
 *   --nodes=300  --step=50  --pods-per-node=30  --pods=5000  --contestants=datastore,etcd
 *
 * SCALE_NODES, SCALE_STEP, SCALE_PODS_PER_NODE, SCALE_PODS and SCALE_CONTESTANTS are the same. What the nodes log is in build/scale.
 */
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { describeError } from '../../src/base/errors.ts'
import { repository } from '../../test/integration/harness/machine.ts'
import { positive } from '../figures.ts'
import {
  type Contestant,
  contestants,
  controlPlane,
  type Part,
  parts,
  ScaledCluster,
  type Use,
} from './cluster.ts'
import {
  type Latency,
  latenciesBetween,
  type Level,
  limitSeconds,
  readHistograms,
  slowestOf,
} from './latencies.ts'

/** What the issue asks for. */
const goals = { nodes: 300, pods: 5000, controlPlaneMb: 8000 }
const podsPerDeployment = 100
const pollMs = 2000
/** After all pods run, for what an otherwise quiet cluster of that size costs. */
const holdMs = 30_000
/** Nodes and pods that take longer than this, and so much more for each, are taken never to come. */
const startLimitMs = 90_000
const msPerNode = 1000
const msPerPod = 400
/** Of the machine; what is left over is the kernel's, and that of whoever else is there. */
const leastFreeBytes = 1 << 30

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: process.env['SCALE_NODES'] ?? String(goals.nodes) },
    step: { type: 'string', default: process.env['SCALE_STEP'] ?? '50' },
    'pods-per-node': { type: 'string', default: process.env['SCALE_PODS_PER_NODE'] ?? '30' },
    pods: { type: 'string', default: process.env['SCALE_PODS'] ?? String(goals.pods) },
    contestants: { type: 'string', default: process.env['SCALE_CONTESTANTS'] ?? contestants.join(',') },
  },
})
const mostNodes = positive('nodes', values.nodes)
const stepNodes = positive('step', values.step)
const podsPerNode = positive('pods-per-node', values['pods-per-node'])
const mostPods = positive('pods', values.pods)
const compared = values.contestants.split(',').map((name) => {
  const known = contestants.find((one) => one === name)
  if (known !== undefined) return known
  console.error(`cannot use --contestants=${values.contestants}: allowed are ${contestants.join(', ')}`)
  process.exit(2)
})
if (mostNodes > 1000 || podsPerNode > 110) {
  console.error('cannot use more than --nodes=1000 and --pods-per-node=110: there are no addresses for more')
  process.exit(2)
}
for (const peer of ['kubemark', 'etcd']) {
  if (existsSync(`${repository}/build/peers/${peer}`)) continue
  console.error(`cannot find build/peers/${peer}: run make bench-scale`)
  process.exit(2)
}

interface Step {
  readonly nodes: number
  readonly pods: number
  readonly joinSeconds: number
  readonly podsPerSecond: number
  readonly requestsPerSecond: number
  readonly slowest: Readonly<Record<Level, Latency | undefined>>
  readonly megabytes: ReadonlyMap<Part, number>
  /** Of the whole step. */
  readonly millicores: ReadonlyMap<Part, number>
  /** While nothing was made. */
  readonly heldMillicores: ReadonlyMap<Part, number>
  /** Of all processors of the machine, until all was there. */
  readonly busyShare: number
}

const results = new Map<Contestant, Step[]>()
for (const contestant of compared) {
  const steps: Step[] = []
  results.set(contestant, steps)
  console.log(`\n${contestant}: at most ${mostNodes} nodes and ${mostPods} pods`)
  const end = await climb(contestant, steps).catch((error: unknown) => `it failed: ${describeError(error)}`)
  console.log(`${contestant}: ${end}`)
}
compare()

/** Goes on until something ends; returns what. */
async function climb(contestant: Contestant, steps: Step[]): Promise<string> {
  await using cluster = await ScaledCluster.start(contestant)
  cluster.beginLoad()
  let pods = 0
  for (let number = 1; cluster.nodes < mostNodes; number++) {
    const nodes = Math.min(cluster.nodes + stepNodes, mostNodes)
    const more = Math.min(nodes * podsPerNode, mostPods) - pods
    pods += more
    const { step, late } = await climbStep(cluster, { number, nodes, more, pods })
    steps.push(step)
    print(step)
    const { ms, problems } = await cluster.status()
    console.log(
      `  k8s status: ${(ms / 1000).toFixed(1)} s${problems.map((problem) => `\n    ${problem}`).join('')}`,
    )
    const end = late ?? whatEnds(step)
    if (end !== undefined) return `ended by this: ${end}`
  }
  return 'all that was asked for is there, within the service levels'
}

async function climbStep(
  cluster: ScaledCluster,
  { number, nodes, more, pods }: { number: number; nodes: number; more: number; pods: number },
): Promise<{ step: Step; late: string | undefined }> {
  const before = readHistograms(await cluster.metrics())
  const began = meter(cluster)
  const joining = performance.now()
  await cluster.join(nodes - cluster.nodes)
  let late = await untilAll(
    'nodes are Ready',
    nodes,
    () => cluster.readyNodes(),
    startLimitMs + nodes * msPerNode,
  )
  const joinSeconds = (performance.now() - joining) / 1000
  const making = meter(cluster)
  if (late === undefined && more > 0) {
    await cluster.deploy(`step-${number}`, more, podsPerDeployment)
    late = await untilAll('pods run', pods, () => cluster.availablePods(), startLimitMs + more * msPerPod)
  }
  const made = meter(cluster)
  const running = late === undefined ? pods : await cluster.availablePods()
  await sleep(holdMs)
  const ended = meter(cluster)
  const latencies = latenciesBetween(before, readHistograms(await cluster.metrics()))
  const seconds = (ended.atMs - began.atMs) / 1000
  const step: Step = {
    nodes: await cluster.readyNodes(),
    pods: running,
    joinSeconds,
    podsPerSecond: (more - (pods - running)) / ((made.atMs - making.atMs) / 1000),
    requestsPerSecond: latencies.reduce((sum, { count }) => sum + count, 0) / seconds,
    slowest: {
      mutating: slowestOf('mutating', latencies),
      single: slowestOf('single', latencies),
      list: slowestOf('list', latencies),
    },
    megabytes: new Map([...ended.use].map(([part, { bytes }]) => [part, bytes / 1e6])),
    millicores: millicoresBetween(began, ended),
    heldMillicores: millicoresBetween(made, ended),
    busyShare: 1 - (made.idleMs - began.idleMs) / (made.totalMs - began.totalMs),
  }
  return { step, late }
}

/** undefined when they came; else what is to be said. */
async function untilAll(
  what: string,
  wanted: number,
  count: () => Promise<number>,
  limitMs: number,
): Promise<string | undefined> {
  const end = performance.now() + limitMs
  for (;;) {
    const there = await count()
    if (there >= wanted) return undefined
    if (performance.now() > end) return `${there} of ${wanted} ${what} after ${Math.round(limitMs / 1000)} s`
    if (freeBytes() < leastFreeBytes) return `the machine's memory ended: ${there} of ${wanted} ${what}`
    await sleep(pollMs)
  }
}

function whatEnds(step: Step): string | undefined {
  for (const level of ['mutating', 'single', 'list'] as const) {
    const slowest = step.slowest[level]
    if (slowest === undefined || slowest.p99Seconds <= limitSeconds[level]) continue
    const busy = `the machine's processors were used by ${Math.round(step.busyShare * 100)} % until all was there`
    return `service level: p99 of ${slowest.call} is ${slowest.p99Seconds.toFixed(2)} s, ${limitSeconds[level]} s is allowed; ${busy}`
  }
  const megabytes = total(step.megabytes, controlPlane)
  if (megabytes > goals.controlPlaneMb)
    return `the control plane has ${megabytes.toFixed(0)} MB, ${goals.controlPlaneMb} are allowed`
  return freeBytes() < leastFreeBytes ? "the machine's memory ended" : undefined
}

interface Meter {
  readonly atMs: number
  readonly use: ReadonlyMap<Part, Use>
  /** Of all the machine's processors. */
  readonly idleMs: number
  readonly totalMs: number
}

function meter(cluster: ScaledCluster): Meter {
  const [, ...ticks] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/)
  // user nice system idle iowait irq softirq steal; the guests' are in the user's.
  const times = ticks.slice(0, 8).map((text) => Number(text) * 10)
  return {
    atMs: performance.now(),
    use: cluster.use(),
    idleMs: (times[3] ?? 0) + (times[4] ?? 0),
    totalMs: times.reduce((sum, time) => sum + time, 0),
  }
}

function millicoresBetween(from: Meter, to: Meter): Map<Part, number> {
  const seconds = (to.atMs - from.atMs) / 1000
  return new Map(
    [...to.use].map(([part, { cpuMs }]) => [part, (cpuMs - (from.use.get(part)?.cpuMs ?? 0)) / seconds]),
  )
}

function freeBytes(): number {
  return Number(/^MemAvailable: +(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024
}

function total(of: ReadonlyMap<Part, number>, which: readonly Part[]): number {
  return which.reduce((sum, part) => sum + (of.get(part) ?? 0), 0)
}

function print(step: Step): void {
  const { nodes, pods, joinSeconds, podsPerSecond, requestsPerSecond, slowest, busyShare } = step
  console.log(
    `${nodes} nodes, ${pods} pods: joined in ${joinSeconds.toFixed(0)} s, ${podsPerSecond.toFixed(1)} pods/s, ${requestsPerSecond.toFixed(0)} requests/s, processors used ${Math.round(busyShare * 100)} %`,
  )
  const shown = (['mutating', 'single', 'list'] as const).map((level) => {
    const one = slowest[level]
    return `${level} ${one === undefined ? '-' : `${one.p99Seconds.toFixed(3)} s (${one.call}, ${one.count})`}`
  })
  console.log(`  p99: ${shown.join('; ')}`)
  const row = (name: string, of: ReadonlyMap<Part, number>) =>
    `  ${name.padEnd(22)}${parts.map((part) => `${part.replace('kube-', '')} ${(of.get(part) ?? 0).toFixed(0)}`).join(', ')}; control plane ${total(of, controlPlane).toFixed(0)}`
  console.log(row('MB', step.megabytes))
  console.log(row('millicores', step.millicores))
  console.log(row('millicores, at rest', step.heldMillicores))
}

/** The last step that both have reached, side by side. */
function compare(): void {
  const [ours = [], theirs = []] = contestants.map((contestant) => results.get(contestant))
  const reached = Math.min(ours.length, theirs.length)
  const [a, b] = [ours[reached - 1], theirs[reached - 1]]
  if (a === undefined || b === undefined) return
  console.log(
    `\n${`${a.nodes} nodes, ${a.pods} pods`.padEnd(36)}${'datastore'.padStart(10)}${'etcd'.padStart(10)}${'ratio'.padStart(8)}`,
  )
  const row = (name: string, of: (step: Step) => number | undefined, digits: number) => {
    const [mine, other] = [of(a) ?? Number.NaN, of(b) ?? Number.NaN]
    console.log(
      `${name.padEnd(36)}${mine.toFixed(digits).padStart(10)}${other.toFixed(digits).padStart(10)}${(mine / other).toFixed(2).padStart(8)}`,
    )
  }
  row('pods made, /s', (step) => step.podsPerSecond, 1)
  row('requests, /s', (step) => step.requestsPerSecond, 0)
  for (const level of ['mutating', 'single', 'list'] as const)
    row(`p99 ${level}, ms`, ({ slowest }) => slowest[level] && slowest[level].p99Seconds * 1000, 0)
  row('control plane, MB', ({ megabytes }) => total(megabytes, controlPlane), 0)
  row('daemon and etcd, MB', ({ megabytes }) => total(megabytes, ['daemon', 'etcd']), 0)
  row('control plane, millicores', ({ millicores }) => total(millicores, controlPlane), 0)
  row('daemon and etcd, millicores', ({ millicores }) => total(millicores, ['daemon', 'etcd']), 0)
  row('the same at rest', ({ heldMillicores }) => total(heldMillicores, ['daemon', 'etcd']), 0)
  row('hollow nodes, MB', ({ megabytes }) => total(megabytes, ['kubemark']), 0)
  row('hollow nodes, millicores', ({ millicores }) => total(millicores, ['kubemark']), 0)
}
