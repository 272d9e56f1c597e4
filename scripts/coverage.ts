/**
 * Prints which part of each room of src/ the tests run: its lines, and its branches (functions, and blocks that run otherwise
 * than what is around them). Reads what V8 has written of every process and thread that ran from the sources, and of the daemons
 * that ran from the artifact.
 *
 *   node scripts/coverage.ts DIRECTORY [--floors]
 *
 * With --floors it ends with 1 when a room has fewer lines than it must.
 */
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { roomOf, rooms } from '../test/layers.ts'
import { codeLines, lineStarts } from './coverage/lines.ts'
import { type ScriptCoverage, TextCoverage } from './coverage/ranges.ts'
import { segmentsOf } from './coverage/source-map.ts'

const root = resolve(import.meta.dirname, '..')

/** In percent of a room's lines. */
const usualFloor = 85
const highFloor = 90
const highRooms = /^(supervisor|cluster|components|datastore)(\/|$)/

const { values, positionals } = parseArgs({
  options: { floors: { type: 'boolean' } },
  allowPositionals: true,
})
const [directory] = positionals
if (directory === undefined) {
  console.error('usage: coverage.ts DIRECTORY [--floors]')
  process.exit(2)
}

const sources = new Map<string, { text: string; coverage: TextCoverage }>()
for (const file of globSync('src/**/*.ts', { cwd: root }).sort()) {
  const text = readFileSync(join(root, file), 'utf8')
  sources.set(file.slice('src/'.length), { text, coverage: new TextCoverage(text.length) })
}
const bundles = new Map(['main.js', 'datastore-worker.js', 'client.js'].flatMap(openBundle))

let processes = 0
for (const name of readdirSync(directory).filter((file) => /^coverage-.*\.json$/.test(file))) {
  const { result } = readCoverage(join(directory, name))
  if (result.length > 0) processes++
  for (const script of result) textOf(script.url)?.add(script)
}
for (const { text, map, coverage, path } of bundles.values()) mapBack({ text, map, coverage, path })
report()

/** A process that was killed while it wrote leaves a part. */
function readCoverage(path: string): { result: readonly ScriptCoverage[] } {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as { result: readonly ScriptCoverage[] }
  } catch {
    return { result: [] }
  }
}

function textOf(url: string): TextCoverage | undefined {
  const source = url.startsWith(`file://${root}/src/`) ? url.slice(`file://${root}/src/`.length) : undefined
  if (source !== undefined) return sources.get(source)?.coverage
  // As the launcher unpacks it, or runs it from memory.
  const name = /\/data\/[0-9a-f]{16}\/lib\/([\w-]+\.js)$/.exec(url)?.[1]
  if (name !== undefined) return bundles.get(name)?.coverage
  return /^file:\/\/\/proc\/.*\/fd\/\d+$/.test(url) ? bundles.get('main.js')?.coverage : undefined
}

interface Bundle {
  readonly path: string
  readonly text: string
  readonly map: { sources: readonly string[]; mappings: string }
  readonly coverage: TextCoverage
}

function openBundle(name: string): [string, Bundle][] {
  const path = join(root, 'build/bundle', name)
  if (!existsSync(`${path}.map`)) return []
  const text = readFileSync(path, 'utf8')
  const map = JSON.parse(readFileSync(`${path}.map`, 'utf8')) as Bundle['map']
  return [[name, { path, text, map, coverage: new TextCoverage(text.length) }]]
}

function mapBack({ path, text, map, coverage }: Bundle): void {
  const starts = lineStarts(text)
  const sourceStarts = new Map<string, number[]>()
  for (const { line, column, source, sourceLine, sourceColumn } of segmentsOf(map)) {
    if (coverage.ran[(starts[line] ?? 0) + column] !== 1) continue
    const file = resolve(dirname(path), source)
    const found = sources.get(file.slice(`${root}/src/`.length))
    if (!file.startsWith(`${root}/src/`) || found === undefined) continue
    const ofSource = sourceStarts.get(file) ?? lineStarts(found.text)
    sourceStarts.set(file, ofSource)
    found.coverage.ran[(ofSource[sourceLine] ?? 0) + sourceColumn] = 1
  }
}

function report(): void {
  const rows = Object.keys(rooms).flatMap((room) => {
    const files = [...sources].filter(([file]) => roomOf(file) === room)
    const counts = files.map(([, source]) => countOf(source))
    const sum = (key: keyof Counts): number => counts.reduce((total, count) => total + count[key], 0)
    if (sum('lines') === 0) return []
    const linesPercent = (100 * sum('linesRun')) / sum('lines')
    const branchesPercent = (100 * sum('branchesRun')) / Math.max(1, sum('branches'))
    return [{ room, lines: sum('lines'), linesPercent, branchesPercent, floor: floorOf(room) }]
  })
  console.log(
    `${'room'.padEnd(26)}${'lines'.padStart(8)}${'run'.padStart(9)}${'branches'.padStart(10)}${'floor'.padStart(7)}`,
  )
  for (const { room, lines, linesPercent, branchesPercent, floor } of rows) {
    const percents = `${linesPercent.toFixed(1).padStart(7)} %${branchesPercent.toFixed(1).padStart(8)} %`
    console.log(`${room.padEnd(26)}${String(lines).padStart(8)}${percents}${String(floor).padStart(5)} %`)
  }
  console.log(`of ${processes} processes and threads`)
  const low = rows.filter(({ linesPercent, floor }) => linesPercent < floor)
  for (const { room, linesPercent, floor } of low) {
    console.log(
      `${room}: ${linesPercent.toFixed(1)} % of its lines are run by tests; at least ${floor} % must be`,
    )
  }
  if (values.floors === true && low.length > 0) process.exitCode = 1
}

interface Counts {
  readonly lines: number
  readonly linesRun: number
  readonly branches: number
  readonly branchesRun: number
}

function countOf({ text, coverage }: { text: string; coverage: TextCoverage }): Counts {
  const starts = lineStarts(text)
  const lines = codeLines(text)
  const run = lines.filter((number) => coverage.ran.subarray(starts[number], starts[number + 1]).includes(1))
  const { total, covered } = coverage.countBranches()
  return { lines: lines.length, linesRun: run.length, branches: total, branchesRun: covered }
}

function floorOf(room: string): number {
  return highRooms.test(room) ? highFloor : usualFloor
}
