/**
 * `make bench-kubelet`: what a kubelet alone takes: the time from the start of `k8s kubelet` on an empty data directory, with the
 * archive of an image in it, until the web server of a static pod answers, and memory and processor time of daemon, containerd and
 * kubelet a minute later; and the same start where the artifact is not unpacked yet.
 */
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { addTestImage } from '../../test/integration/harness/cluster.ts'
import { Machine } from '../../test/integration/harness/machine.ts'
import { pod, webServer } from '../../test/integration/harness/manifests.ts'
import { cpuTimeMs, memoryBytes } from '../../test/integration/harness/processes.ts'
import { median, positive } from '../figures.ts'
import { componentsOf } from '../start/contestants.ts'

/** What the issue asks for. */
const goals = { runningMs: 3000, memoryMb: 120 }
const settleMs = 60_000
const idleMs = 30_000

interface Figures {
  readonly unpackedMs: number
  readonly runningMs: number
  /** By process name. */
  readonly memory: readonly (readonly [name: string, bytes: number])[]
  readonly cpuMillicores: number
}

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } })
const runs = positive('runs', values.runs)
const all: Figures[] = []
for (let run = 1; run <= runs; run++) {
  const figures = await measure()
  all.push(figures)
  console.error(`run ${run}/${runs}: ${seconds(figures.runningMs)} s, ${total(figures).toFixed(0)} MB`)
}
console.log(`\nmedians of ${runs} starts of a kubelet alone`)
row('static pod answers, s', median(all.map(({ runningMs }) => runningMs / 1000)), 2, goals.runningMs / 1000)
row('the same with unpacking, s', median(all.map(({ unpackedMs }) => unpackedMs / 1000)), 2)
row('PSS a minute later, MB (10^6)', median(all.map(total)), 0, goals.memoryMb)
for (const [index, [name]] of (all[0]?.memory ?? []).entries())
  row(`  ${name}`, median(all.map(({ memory }) => (memory[index]?.[1] ?? 0) / 1e6)), 0)
row('idle CPU, millicores', median(all.map(({ cpuMillicores }) => cpuMillicores)), 1)

async function measure(): Promise<Figures> {
  const unpackedMs = await start(
    async () => {},
    async () => {},
  )
  let rest: Pick<Figures, 'memory' | 'cpuMillicores'> = { memory: [], cpuMillicores: 0 }
  const runningMs = await start(
    // Which unpacks the artifact.
    async (machine) => void (await machine.exec(['k8s', 'kubectl', 'version', '--client'])),
    async (machine) => void (rest = await idle(machine)),
  )
  return { unpackedMs, runningMs, ...rest }
}

/** In a machine of its own, until the pod answers; `use` is called then. */
async function start(
  prepare: (machine: Machine) => Promise<void>,
  use: (machine: Machine) => Promise<void>,
): Promise<number> {
  await using machine = await Machine.create({ name: 'bench-kubelet' })
  await prepare(machine)
  addTestImage(machine)
  mkdirSync(machine.path('/etc/kubernetes/manifests'), { recursive: true })
  const web = pod('web', webServer, { spec: { hostNetwork: true } })
  writeFileSync(machine.path('/etc/kubernetes/manifests/web.json'), JSON.stringify(web))
  await using observer = machine.spawn([process.execPath, `${import.meta.dirname}/observe.ts`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  if (observer.child.stdout === null) throw new Error('bug: the observer has no output')
  const lines = createInterface(observer.child.stdout)
  await once(lines, 'line')
  const begun = process.hrtime.bigint()
  await using _daemon = machine.spawn(['k8s', 'kubelet'], { stdio: ['ignore', 'ignore', 'ignore'] })
  const [line] = (await once(lines, 'line')) as [string]
  const tookMs = Number(BigInt(line.split(' ')[1] ?? '0') - begun) / 1e6
  await use(machine)
  return tookMs
}

async function idle(machine: Machine): Promise<Pick<Figures, 'memory' | 'cpuMillicores'>> {
  await sleep(settleMs)
  const components = componentsOf(machine, 'k8s')
  const used = () => components.reduce((sum, { pid }) => sum + cpuTimeMs(machine, pid), 0)
  const before = used()
  await sleep(idleMs)
  return {
    memory: components.map(({ name, pid }) => [name, memoryBytes(machine, pid)] as const),
    cpuMillicores: ((used() - before) / idleMs) * 1000,
  }
}

function total({ memory }: Figures): number {
  return memory.reduce((sum, [, bytes]) => sum + bytes, 0) / 1e6
}

function row(name: string, value: number, digits: number, goal?: number): void {
  console.log(
    `${name.padEnd(32)} ${value.toFixed(digits).padStart(8)}${goal === undefined ? '' : `  goal: at most ${goal}`}`,
  )
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(2)
}
