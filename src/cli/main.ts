import { AppError, describeError, errorCode } from '../base/errors.ts'
import { type Commands, parseArguments } from './arguments.ts'
import { check } from './check.ts'
import { type Command, type Invocation, payloadNeededExitCode } from './command.ts'
import { datastore } from './datastore.ts'
import { reset } from './reset.ts'
import { server } from './server.ts'
import { status } from './status.ts'
import { stop } from './stop.ts'
import { version } from './version.ts'

export const commands: Commands = {
  all: [server, status, stop, check, reset, datastore, version],
  default: server,
  external: ['kubectl', 'crictl', 'ctr'],
}

const exitCodes: Readonly<Record<string, number>> = { USAGE: 2, PAYLOAD_NEEDED: payloadNeededExitCode }

/** The streams and variables of the process, which tests replace. */
export interface Surroundings extends Omit<Invocation, 'flags'> {
  /** Writes to the standard error. */
  readonly complain: (text: string) => void
}

/** Runs one command of the process' own and ends the process. */
export async function main(argv: readonly string[]): Promise<never> {
  // `k8s status | head -1` is no failure.
  process.stdout.on('error', (error) => process.exit(errorCode(error) === 'EPIPE' ? 0 : 1))
  const exitCode = await execute(argv, {
    environment: process.env,
    print: (text) => process.stdout.write(text),
    complain: (text) => process.stderr.write(text),
  })
  process.exit(exitCode)
}

/** Returns the exit code: 0 ok, 1 failure, 2 bad input, and what the launcher acts upon. */
export async function execute(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  try {
    return await run(argv, surroundings)
  } catch (error) {
    const code = errorCode(error) ?? ''
    if (code !== 'PAYLOAD_NEEDED') surroundings.complain(`k8s: ${lineOf(error)}\n`)
    return exitCodes[code] ?? 1
  }
}

async function run(argv: readonly string[], { environment, print }: Surroundings): Promise<number> {
  const request = parseArguments(argv, commands)
  switch (request.kind) {
    case 'help':
      print(`${await helpFor(request.command)}\n`)
      return 0
    case 'version':
      return version.handler({ flags: [], environment, print })
    case 'run':
      return request.command.handler({ flags: request.flags, environment, print })
  }
}

async function helpFor(command: Command | undefined): Promise<string> {
  const { renderCommand, renderCommands } = await import('./help.ts')
  return command === undefined ? renderCommands(commands) : renderCommand(command, commands)
}

/** One line with the remedy for what was foreseen; all there is for what was not. */
function lineOf(error: unknown): string {
  if (!(error instanceof AppError))
    return error instanceof Error ? (error.stack ?? error.message) : String(error)
  const { remedy } = error
  const advice = remedy === undefined ? '' : `. ${remedy.slice(0, 1).toUpperCase()}${remedy.slice(1)}`
  return `${describeError(error)}${advice}`.replaceAll('\n', ' ')
}
