/**
 * `make bench-start`: the time from start to a Ready node, memory and idle CPU of the artifact and of the
 * same components started by a shell script with etcd, interleaved. `--runs` starts of each; `--idle-runs` of them
 * are watched for two more minutes.
 */
import { statSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { artifact, Machine } from '../../test/integration/harness/machine.ts'
import { median, positive } from '../figures.ts'
import { type Contestant, type Idle, measureStart, type Start, timed } from './contestants.ts'

/** What the issue asks for. */
const goals = {
  ratio: 1.25,
  memoryMb: 560,
  idleMillicores: 60,
  unpackMs: 2000,
  artifactMb: 110,
  overheadMs: 15,
}
const contestants: readonly Contestant[] = ['k8s', 'bare']
const clientRuns = 25

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, 'idle-runs': { type: 'string', default: '1' } },
})
const runs = positive('runs', values.runs)
const idleRuns = positive('idle-runs', values['idle-runs'])

const starts: Record<Contestant, Start[]> = { k8s: [], bare: [] }
for (let run = 1; run <= runs; run++) {
  for (const contestant of contestants) {
    const start = await measureStart(contestant, { idle: run <= idleRuns })
    starts[contestant].push(start)
    console.error(
      `run ${run}/${runs} ${contestant.padEnd(4)} apiserver ${seconds(start.apiserverReadyMs)} s, node ${seconds(start.nodeReadyMs)} s`,
    )
  }
}
const overheadMs = await measureClientOverhead()
report()

function report(): void {
  const figure = (contestant: Contestant, of: (start: Start) => number | undefined) =>
    median(starts[contestant].map(of).filter((value) => value !== undefined))
  const memory = (start: Start) => start.idle && total(start.idle.memory) / 1e6
  const cpu = (start: Start) => start.idle && total(start.idle.cpuMillicores)
  const row = (name: string, of: (start: Start) => number | undefined, digits: number, goal = '') => {
    const [ours, bare] = [figure('k8s', of), figure('bare', of)]
    const cells = [
      name.padEnd(32),
      ours.toFixed(digits).padStart(8),
      bare.toFixed(digits).padStart(8),
      (ours / bare).toFixed(2).padStart(6),
    ]
    console.log(`${cells.join(' ')}  ${goal}`)
  }
  console.log(`\nmedians of ${runs} interleaved starts${' '.repeat(7)}k8s     bare  ratio`)
  row('API server ready, s', (start) => start.apiserverReadyMs / 1000, 2)
  row('node Ready, s', (start) => start.nodeReadyMs / 1000, 2, `goal: ratio at most ${goals.ratio}`)
  row('PSS at Ready + 60 s, MB (10^6)', memory, 0, `goal: at most ${goals.memoryMb}`)
  row('idle CPU, millicores', cpu, 1, `goal: at most ${goals.idleMillicores}`)
  for (const contestant of contestants) {
    for (const { idle } of starts[contestant])
      if (idle !== undefined) {
        console.log(`\n${contestant}: ${describeIdle(idle)}`)
        if (idle.addons?.memory.size) console.log(`pods of add-ons, in no sum: ${describeIdle(idle.addons)}`)
      }
  }
  const artifactMb = statSync(artifact).size / 1e6
  console.log(`\nartifact ${artifactMb.toFixed(1)} MB (goal: at most ${goals.artifactMb})`)
  console.log(
    `unpacking ${seconds(figure('k8s', (start) => start.unpackMs))} s (goal: at most ${seconds(goals.unpackMs)})`,
  )
  console.log(
    `k8s kubectl version --client takes ${overheadMs.toFixed(1)} ms longer than kubectl (goal: at most ${goals.overheadMs})`,
  )
}

function describeIdle({ memory, cpuMillicores }: Idle): string {
  return [...memory]
    .map(
      ([name, bytes]) =>
        `${name} ${(bytes / 1e6).toFixed(0)} MB ${(cpuMillicores.get(name) ?? 0).toFixed(1)} m`,
    )
    .join(', ')
}

/** The median of the differences between neighbours, so that a slow moment hits both. The same kubectl runs in both. */
async function measureClientOverhead(): Promise<number> {
  await using machine = await Machine.create({ name: 'bench-client' })
  const ours = () => machine.exec(['k8s', 'kubectl', 'version', '--client'])
  await ours()
  const { stdout } = await machine.exec(['sh', '-c', 'echo /var/lib/k8s/data/*/bin/kubectl'])
  const bare = () => machine.exec([stdout.trim(), 'version', '--client'])
  await bare()
  const differences: number[] = []
  for (let run = 0; run < clientRuns; run++) differences.push((await timed(ours)) - (await timed(bare)))
  return median(differences)
}

function total(values_: ReadonlyMap<string, number>): number {
  return [...values_.values()].reduce((sum, value) => sum + value, 0)
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(2)
}
