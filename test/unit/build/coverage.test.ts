import { execFileSync } from 'node:child_process'
import { mkdtempDisposableSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'
import { expect, test } from 'vitest'
import { codeLines, lineStarts } from '../../../scripts/coverage/lines.ts'
import { type ScriptCoverage, TextCoverage } from '../../../scripts/coverage/ranges.ts'
import { segmentsOf } from '../../../scripts/coverage/source-map.ts'

const program = `interface Shape {
  readonly side: number
}

/* A comment
   of two lines. */
// Another one.
function area({ side }: Shape): number {
  if (side < 0) {
    throw new Error('cannot be')
  }
  return side * side
}

function never(): string {
  return 'never'
}

if (process.argv[2] === 'never') {
  console.log(never())
}
console.log(area({ side: Number(process.argv[3] ?? 2) }))
`

/** Runs a program with V8's coverage, and returns what that says of the files whose names end like this. */
function cover(directory: string, file: string, args: readonly string[] = []): ScriptCoverage[] {
  const raw = join(directory, 'raw')
  try {
    execFileSync(process.execPath, [join(directory, file), ...args], {
      env: { NODE_V8_COVERAGE: raw },
      stdio: 'ignore',
    })
  } catch {
    // Some end with an error.
  }
  return readdirSync(raw)
    .flatMap(
      (name) => (JSON.parse(readFileSync(join(raw, name), 'utf8')) as { result: ScriptCoverage[] }).result,
    )
    .filter(({ url }) => url.endsWith(`/${file}`))
}

/** The numbers of the lines that were run, from 1. */
function linesRun(text: string, ran: Uint8Array): number[] {
  const starts = lineStarts(text)
  return codeLines(text)
    .filter((line) => ran.subarray(starts[line], starts[line + 1]).includes(1))
    .map((line) => line + 1)
}

test('lines with something to run are counted: no types, comments and closing brackets', () => {
  expect(codeLines(program).map((line) => line + 1)).toEqual([8, 9, 10, 12, 15, 16, 19, 20, 22])
})

test('what some process ran is covered, and the branches that none took are not', () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-coverage-'))
  writeFileSync(join(directory.path, 'program.ts'), program)
  const one = new TextCoverage(program.length)
  for (const script of cover(directory.path, 'program.ts')) one.add(script)
  expect(linesRun(program, one.ran)).toEqual([8, 9, 12, 19, 22])
  const { total, covered } = one.countBranches()
  expect(covered).toBeLessThan(total)
  const both = new TextCoverage(program.length)
  for (const script of cover(directory.path, 'program.ts', ['never', '-1'])) both.add(script)
  expect(linesRun(program, both.ran)).toEqual([8, 9, 10, 12, 15, 16, 19, 20, 22])
  expect(both.countBranches().covered).toBe(both.countBranches().total)
})

test('what a bundle ran leads back to its sources', async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-coverage-'))
  writeFileSync(join(directory.path, 'program.ts'), `import './other.ts'\n${program}`)
  writeFileSync(join(directory.path, 'other.ts'), 'export const other = 1\nconsole.log(other)\n')
  await build({
    entryPoints: [join(directory.path, 'program.ts')],
    outfile: join(directory.path, 'bundle.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    sourcemap: 'external',
  })
  const text = readFileSync(join(directory.path, 'bundle.mjs'), 'utf8')
  const coverage = new TextCoverage(text.length)
  for (const script of cover(directory.path, 'bundle.mjs')) coverage.add(script)
  const map = JSON.parse(readFileSync(join(directory.path, 'bundle.mjs.map'), 'utf8')) as {
    sources: string[]
    mappings: string
  }
  const starts = lineStarts(text)
  const ran = new Set(
    [...segmentsOf(map)]
      .filter(({ line, column }) => coverage.ran[(starts[line] ?? 0) + column] === 1)
      .map(({ source, sourceLine }) => `${source}:${sourceLine + 1}`),
  )
  for (const line of [10, 13, 23]) expect(ran).toContain(`program.ts:${line}`)
  for (const line of [11, 17, 21]) expect(ran).not.toContain(`program.ts:${line}`)
  expect(ran).toContain('other.ts:2')
})
