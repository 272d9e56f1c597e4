import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempDisposableSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { execute } from '../../../src/cli/main.ts'

const main = new URL('../../../src/main.ts', import.meta.url).pathname

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface CommandLine {
  readonly args: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
}

/** Runs a command in this process, with no environment but what is given. */
export async function runCli({ args, environment = {} }: CommandLine): Promise<Outcome> {
  const stdout: string[] = []
  const stderr: string[] = []
  const code = await execute(args, {
    environment,
    print: (written) => stdout.push(written),
    complain: (written) => stderr.push(written),
  })
  return { code, stdout: stdout.join(''), stderr: stderr.join('') }
}

/** The same with `DIR` in the arguments for an empty directory, and with what is left in that. */
export async function runInEmptyDirectory(line: CommandLine): Promise<Outcome & { readonly left: string[] }> {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-cli-'))
  const { code, stdout, stderr } = await runCli({
    ...line,
    args: line.args.map((argument) => argument.replace('DIR', directory.path)),
  })
  const hidden = (written: string) => written.replaceAll(directory.path, 'DIR')
  return { code, stdout: hidden(stdout), stderr: hidden(stderr), left: readdirSync(directory.path) }
}

/** Runs the program as a process of its own, from its sources. */
export async function runProcess({
  args,
  environment = {},
  uid,
  through = [],
}: CommandLine & {
  readonly uid?: number
  /** What executes it: a command that takes another one. */
  readonly through?: readonly string[]
}): Promise<Outcome> {
  const [command = '', ...words] = [...through, process.execPath, main, ...args]
  const child = spawn(command, words, {
    env: {
      PATH: process.env['PATH'],
      // Another user cannot write where this one measures what of the code was run.
      ...(uid !== undefined && { NODE_V8_COVERAGE: '' }),
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid !== undefined && { uid }),
  })
  const closed = once(child, 'close') as Promise<[number | null]>
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), closed])
  return { code, stdout, stderr }
}
