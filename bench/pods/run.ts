/**
 * `make bench-pods`: how long the pods of a full node take until they are created, Ready and deleted again, on the artifact and on the
 * same components started by a shell script with etcd, interleaved. Prints medians and ratios.
 *
 *   --pods=250  --runs=3
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { disableable } from '../../src/config/settings/server.ts'
import { type Machine, repository } from '../../test/integration/harness/machine.ts'
import { cpuTimeMs } from '../../test/integration/harness/processes.ts'
import { median, positive } from '../figures.ts'
import { builtPayload, type Contestant, componentsOf, sumByName, withStart } from '../start/contestants.ts'

const contestants: readonly Contestant[] = ['k8s', 'bare']
const marks = ['created', 'ready', 'deleted'] as const
/** The bare components have no add-ons, whose pods would start beside those of the benchmark. */
const parts: readonly string[] = ['kube-proxy', 'network-policy', 'servicelb']
const withoutAddOns = `--disable=${disableable.filter((name) => !parts.includes(name)).join()}`
const pauseImage = execFileSync(`${repository}/scripts/image-reference.sh`, ['pause'], {
  encoding: 'utf8',
}).trim()

const { values } = parseArgs({
  options: { pods: { type: 'string', default: '250' }, runs: { type: 'string', default: '3' } },
})
const pods = positive('pods', values.pods)
const runs = positive('runs', values.runs)

/** What one run took, by row. */
type Measured = Map<string, number>

const results: Record<Contestant, Measured[]> = { k8s: [], bare: [] }
for (let run = 1; run <= runs; run++) {
  for (const contestant of contestants) {
    const measured = await withStart(
      { contestant, payload: builtPayload, kubeletFlags: [`max-pods=${pods}`], daemonFlags: [withoutAddOns] },
      (machine, { kubeconfig }) => measurePods({ machine, contestant, kubeconfig }),
    )
    results[contestant].push(measured)
    const words = [...measured].slice(0, marks.length).map(([name, value]) => `${name} ${value.toFixed(1)}`)
    console.error(`run ${run}/${runs} ${contestant.padEnd(4)} ${words.join('  ')}`)
  }
}
report()

async function measurePods(given: {
  machine: Machine
  contestant: Contestant
  kubeconfig: string
}): Promise<Measured> {
  const { machine, contestant, kubeconfig } = given
  const cpu = (): Map<string, number> =>
    sumByName(
      componentsOf(machine, contestant).map(({ pid, name }) => [name, cpuTimeMs(machine, pid) / 1000]),
    )
  const before = cpu()
  await using client = machine.spawn(
    [process.execPath, `${import.meta.dirname}/client.ts`, kubeconfig, String(pods), pauseImage],
    { stdio: ['ignore', 'pipe', 2] },
  )
  if (client.child.stdout === null) throw new Error('bug: the client has no output')
  const measured: Measured = new Map()
  const lines = createInterface(client.child.stdout)
  lines.on('line', (line) => {
    const [mark, milliseconds] = line.split(' ')
    measured.set(`${mark}, s`, Number(milliseconds) / 1000)
  })
  await once(lines, 'close')
  if (measured.size !== marks.length) throw new Error(`${contestant}: the client has failed`)
  for (const [name, seconds] of cpu()) measured.set(`CPU of ${name}, s`, seconds - (before.get(name) ?? 0))
  return measured
}

function report(): void {
  console.log(
    `\nmedians of ${runs} interleaved runs, ${pods} pods`.padEnd(46) + '       k8s      bare     ratio',
  )
  const names = new Set(
    contestants.flatMap((contestant) => results[contestant].flatMap((one) => [...one.keys()])),
  )
  for (const name of names) {
    const [ours, bare] = contestants.map((contestant) =>
      median(results[contestant].flatMap((one) => one.get(name) ?? [])),
    ) as [number, number]
    const cells = [ours.toFixed(1), bare.toFixed(1), (ours / bare).toFixed(2)].map((cell) =>
      cell.padStart(10),
    )
    console.log(name.padEnd(45) + cells.join(''))
  }
}
