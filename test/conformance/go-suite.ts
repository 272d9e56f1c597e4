import { execFile, spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { etcdFileProgram } from './etcd-peer.ts'

const run = promisify(execFile)
const here = fileURLToPath(new URL('.', import.meta.url))
export const root: string = fileURLToPath(new URL('../..', import.meta.url))
export const peer = (name: string): string => join(root, 'build/peers', name)

export interface SuiteResult {
  readonly passed: readonly string[]
  /** What failed or was skipped, as `go test` names it. */
  readonly others: readonly string[]
  readonly exitCode: number
}

/** What starts the datastore for a suite: a command to which flags are appended. */
export async function datastoreCommand(name: string): Promise<string> {
  const bundle = join(root, 'build/conformance', name, 'bundle')
  await run(process.execPath, [join(here, 'storage/bundle.ts'), bundle])
  return `${process.execPath} ${join(bundle, 'serve.js')} --etcd-file ${etcdFileProgram}`
}

/** Compiles the Go module test/conformance/NAME and runs its tests; output.log has what they say. */
export async function runGoSuite(name: string, env: Record<string, string>): Promise<SuiteResult> {
  const directory = join(root, 'build/conformance', name)
  mkdirSync(directory, { recursive: true })
  const binary = join(directory, 'suite.test')
  const datastore = await datastoreCommand(name)
  const module = join(here, name)
  await run('go', ['test', '-c', '-o', binary, '.'], { cwd: module })
  const { results, exitCode } = await runTests(binary, ['-test.v', '-test.timeout', '15m'], {
    directory,
    cwd: module,
    env: { DATASTORE: datastore, ETCD: peer('etcd'), ...env },
  })
  const names = (isPassed: boolean): string[] =>
    results
      .filter((line) => line.startsWith('--- PASS') === isPassed)
      .map((line) => line.replace(/^--- PASS: /, '').replace(/ \([\d.]+s\)$/, ''))
  return { passed: names(true), others: names(false), exitCode }
}

/** Runs a test program of Go's with -test.v; `results` are its lines "--- PASS: ...", of subtests too. */
export async function runTests(
  command: string,
  args: readonly string[],
  { directory, cwd, env }: { directory: string; cwd?: string; env: Record<string, string> },
): Promise<{ results: string[]; exitCode: number }> {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env } })
  const output = createWriteStream(join(directory, 'output.log'))
  const results: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    let rest = ''
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => {
      output.write(chunk)
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) if (/^\s*--- (PASS|FAIL|SKIP): /.test(line)) results.push(line.trim())
    })
  }
  const exitCode = await new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? -1)))
  output.end()
  return { results, exitCode }
}
