/**
 * `make bench-datastore`: this datastore, etcd and kine under the requests that kube-apiserver sends, one after the
 * other in each round, so that a slow moment of the machine hits all of them. Prints medians and ratios.
 *
 *   --runs=7  --keys=20000  --lists=10  --only=requests,compaction,catch-up,mixed,idle  --contestants=k8s,etcd,kine
 *
 * With `--keys` of 500,000 and more it is `--only=many --runs=3 --lists=3 --contestants=k8s,etcd`: a tenth of the objects are pods, which the
 * requests are for. The databases are filled once, or found in `--directory=`, where they stay.
 *
 * `--contestants=proxy,etcd`: an etcd behind the proxy of server-mode ha, whose own use is shown, beside one without.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { describeError } from '../../src/base/errors.ts'
import { repository } from '../../test/integration/harness/machine.ts'
import { median, positive } from '../figures.ts'
import { type Contestant, Server, buildClient, contestants } from './servers.ts'

const modes = ['requests', 'compaction', 'catch-up', 'mixed', 'idle', 'many'] as const
type Mode = (typeof modes)[number]

/** What one round measured of one contestant, by row. */
type Measured = Map<string, number>

interface Row {
  readonly name: string
  readonly perSecond: number
  readonly p99Ms: number
  readonly maxMs: number
}

const slowFsyncMs = 20
const idleSeconds = 20
const clientTimeoutMs = 15 * 60_000
/** In a directory whose database has all of its keys. */
const filledMark = 'filled'

/** From so many keys on, what all of them are listed and filled anew for would take hours, most of all kine's. */
const manyKeys = 500_000
/** What is asked for where nothing is said, of a usual store and of a large one. */
const usual = {
  runs: '7',
  lists: '10',
  only: 'requests,compaction,catch-up,mixed,idle',
  contestants: 'k8s,etcd,kine',
}
const large = { runs: '3', lists: '3', only: 'many', contestants: 'k8s,etcd' }

const { values: given } = parseArgs({
  options: {
    runs: { type: 'string' },
    keys: { type: 'string', default: '20000' },
    lists: { type: 'string' },
    only: { type: 'string' },
    contestants: { type: 'string' },
    directory: { type: 'string' },
  },
})
const keys = positive('keys', given.keys)
const values = { ...(keys < manyKeys ? usual : large), ...given }
const runs = positive('runs', values.runs)
const lists = positive('lists', values.lists)
const chosen = listed('only', values.only, modes)
const compared = listed('contestants', values.contestants, contestants)
const kept = values.directory ?? mkdtempSync(join(tmpdir(), 'bench-many-'))
const client = buildClient()
const slowFsync = buildSlowFsync()

/** What each mode adds; a name ends with its unit. */
const measure: Record<Mode, (contestant: Contestant, measured: Measured) => Promise<void>> = {
  async requests(contestant, measured) {
    await using server = await Server.start(contestant)
    for (const { name, perSecond, p99Ms } of await runClient(server, ['-mode=requests'])) {
      if (name === 'watch delivery') measured.set('watch delivery p99, ms', p99Ms)
      else measured.set(`${name}, /s`, perSecond)
    }
    const { cpuSeconds, peakMemoryMb } = server.use()
    measured.set('CPU of these requests, s', cpuSeconds)
    measured.set('peak memory (RSS), MB', peakMemoryMb)
  },
  async compaction(contestant, measured) {
    await using server = await Server.start(contestant)
    for (const { maxMs } of await runClient(server, ['-mode=compaction', '-for=1s'])) {
      measured.set('longest get during a compaction, ms', maxMs)
    }
  },
  /** kine, asked for no more than one key's history, reads all of it for each. */
  async 'catch-up'(contestant, measured) {
    if (contestant === 'kine') return
    await using server = await Server.start(contestant)
    for (const { p99Ms } of await runClient(server, ['-mode=catch-up', '-for=1s'])) {
      measured.set('get while 5,000 watchers catch up, p99, ms', p99Ms)
    }
  },
  /** etcd and kine are static programs, which nothing can be preloaded into. */
  async mixed(contestant, measured) {
    if (contestant !== 'k8s') return
    await using server = await Server.start(contestant, {
      env: { LD_PRELOAD: slowFsync, SLOW_FSYNC_MS: String(slowFsyncMs) },
    })
    for (const { name, perSecond, p99Ms } of await runClient(server, ['-mode=mixed'])) {
      measured.set(`fsync +${slowFsyncMs} ms: ${name}, /s`, perSecond)
      if (name !== 'writes') measured.set(`fsync +${slowFsyncMs} ms: ${name}, p99 ms`, p99Ms)
    }
  },
  /** On a database that stays over the rounds: each leaves as many objects as it has found. */
  async many(contestant, measured) {
    const directory = join(kept, `${contestant}-${keys}`)
    const client = (server: Server, mode: string) => runClient(server, [`-mode=${mode}`, '-in-flight=64'])
    if (!existsSync(join(directory, filledMark))) {
      rmSync(directory, { recursive: true, force: true })
      mkdirSync(directory, { recursive: true })
      await using server = await Server.start(contestant, { directory })
      await client(server, 'fill')
      await server.stop()
      writeFileSync(join(directory, filledMark), '')
    }
    // Whoever ends in the middle of a round leaves less, which the next one fills anew.
    rmSync(join(directory, filledMark))
    await using server = await Server.start(contestant, { directory })
    measured.set('start until a read, s', server.startMs / 1000)
    measured.set('CPU of the start, s', server.startCpuSeconds)
    measured.set('memory after the start (RSS), MB', server.use().memoryMb)
    measured.set('at its peak, MB', server.use().peakMemoryMb)
    for (const { name, perSecond, p99Ms, maxMs } of await client(server, 'many')) {
      if (name === 'compaction' || name === 'defragmentation') measured.set(`${name}, s`, 1 / perSecond)
      else if (name.startsWith('get during')) measured.set(`longest ${name}, ms`, maxMs)
      else if (name === 'watch delivery') measured.set('watch delivery p99, ms', p99Ms)
      else measured.set(`${name}, /s`, perSecond)
    }
    const { cpuSeconds, peakMemoryMb } = server.use()
    measured.set('CPU of these requests, s', cpuSeconds)
    measured.set('peak memory (RSS), MB', peakMemoryMb)
    await server.stop()
    writeFileSync(join(directory, filledMark), '')
    measured.set('size on the disk, MB', sizeOf(directory) / 1e6)
  },
  async idle(contestant, measured) {
    await using server = await Server.start(contestant)
    const child = spawn(client, clientArguments(server, ['-mode=idle', `-for=${idleSeconds}s`]), {
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: clientTimeoutMs,
    })
    const seconds: number[] = []
    for await (const line of createInterface(child.stdout)) {
      if (line === 'idle' || line === 'over') seconds.push(server.use().cpuSeconds)
    }
    const [before = Number.NaN, after = Number.NaN] = seconds
    measured.set('idle with 50 watchers, millicores', ((after - before) / idleSeconds) * 1000)
  },
}

const results = new Map<Contestant, Measured[]>(compared.map((contestant) => [contestant, []]))
for (let run = 1; run <= runs; run++) {
  for (const contestant of compared) {
    const measured: Measured = new Map()
    for (const mode of chosen) {
      // kine now and then tells a watcher of more than was written; what is lost of it is that row of that run.
      await measure[mode](contestant, measured).catch((error: unknown) => {
        if (contestant === 'k8s') throw error
        console.error(`run ${run}/${runs} ${contestant}: ${mode} has failed: ${describeError(error)}`)
      })
    }
    results.get(contestant)?.push(measured)
    const words = [...measured].map(([name, value]) => `${name} ${cell(value).trim()}`)
    console.error(`run ${run}/${runs} ${contestant}: ${words.join('; ')}`)
  }
}
if (values.directory === undefined) rmSync(kept, { recursive: true, force: true })
report()

async function runClient(server: Server, args: readonly string[]): Promise<Row[]> {
  const child = spawn(client, clientArguments(server, args), {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: clientTimeoutMs,
  })
  // What takes minutes is watched.
  if (keys >= manyKeys) child.stderr.pipe(process.stderr, { end: false })
  const [output, words, [exitCode]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ])
  if (exitCode !== 0) throw new Error(`the client failed: ${words}`)
  return JSON.parse(output) as Row[]
}

function clientArguments({ endpoint }: Server, args: readonly string[]): string[] {
  return [`-endpoint=${endpoint}`, `-keys=${keys}`, `-lists=${lists}`, ...args]
}

function report(): void {
  const names = new Set(
    compared.flatMap((contestant) => results.get(contestant)?.flatMap((m) => [...m.keys()]) ?? []),
  )
  const [first, ...peers] = compared
  const header = [...compared, ...peers.map((peer) => `${first}/${peer}`)].map((word) => word.padStart(10))
  console.log(
    `\nmedians of ${runs} interleaved runs, ${keys} keys of ${keys < manyKeys ? 1.5 : 1} kB`.padEnd(46) +
      header.join(''),
  )
  for (const name of names) {
    const medians = compared.map((contestant) => medianOf(results.get(contestant) ?? [], name))
    const [ours] = medians
    const ratios = medians
      .slice(1)
      .map((theirs) => (ours === undefined || theirs === undefined ? undefined : ours / theirs))
    console.log(name.padEnd(45) + [...medians, ...ratios].map(cell).join(''))
  }
}

/** What all files below a directory take. */
function sizeOf(directory: string): number {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).blocks * 512, 0)
}

function cell(value: number | undefined): string {
  const digits = value === undefined || value < 10 ? 2 : value < 100 ? 1 : 0
  return (value?.toFixed(digits) ?? '-').padStart(10)
}

function medianOf(rounds: readonly Measured[], name: string): number | undefined {
  const found = rounds.flatMap((measured) => measured.get(name) ?? [])
  return found.length === 0 ? undefined : median(found)
}

function buildSlowFsync(): string {
  const output = `${repository}/build/bench/slow-fsync.so`
  mkdirSync(`${repository}/build/bench`, { recursive: true })
  execFileSync('gcc', [
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-shared',
    '-fPIC',
    '-o',
    output,
    `${import.meta.dirname}/slow-fsync.c`,
    '-ldl',
  ])
  return output
}

function listed<Word extends string>(name: string, given: string, allowed: readonly Word[]): Word[] {
  const words = given.split(',')
  const unknown = words.find((word) => !(allowed as readonly string[]).includes(word))
  if (unknown === undefined) return words as Word[]
  console.error(`cannot use --${name}=${unknown}: allowed are ${allowed.join(', ')}`)
  process.exit(2)
}
