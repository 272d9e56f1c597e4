/**
 * Prints how many minutes each part of a run of the tests took, and its slowest files, from the JSON that vitest has written:
 * docs/testing.md allots them.
 *
 *   node scripts/test-minutes.ts build/test-results.json
 */
import { readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'

const slowestShown = 12

const [file] = process.argv.slice(2)
if (file === undefined) {
  console.error('usage: test-minutes.ts RESULTS')
  process.exit(2)
}

interface Result {
  readonly name: string
  readonly startTime: number
  readonly endTime: number
}

const { testResults } = JSON.parse(readFileSync(file, 'utf8')) as { testResults: readonly Result[] }
const root = resolve(import.meta.dirname, '../test')
const files = testResults.map(({ name, startTime, endTime }) => ({
  path: relative(root, name),
  startTime,
  endTime,
}))
const print = (name: string, milliseconds: number): void =>
  console.log(`${name.padEnd(44)}${(milliseconds / 60_000).toFixed(1).padStart(6)} min`)

// One part follows the other; files of one may run side by side.
for (const [part, results] of Map.groupBy(files, ({ path }) => path.split('/')[0] ?? '')) {
  const start = Math.min(...results.map(({ startTime }) => startTime))
  const end = Math.max(...results.map(({ endTime }) => endTime))
  print(part, end - start)
}
const slowest = files.toSorted((a, b) => b.endTime - b.startTime - (a.endTime - a.startTime))
for (const { path, startTime, endTime } of slowest.slice(0, slowestShown))
  print(`  ${path}`, endTime - startTime)
