import { BoundedWriter } from '../base/bounded-writer.ts'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { loadDataDir } from '../config/load.ts'
import { type Commands, parseArguments, type Request } from './arguments.ts'
import { agent } from './agent.ts'
import { check } from './check.ts'
import { clusterCommands } from './cluster.ts'
import { type Invocation, isBeforeUnpacking, payloadNeededExitCode } from './command.ts'
import { datastore } from './datastore.ts'
import { dbCommands } from './db.ts'
import { kubelet } from './kubelet.ts'
import { labCommands } from './lab.ts'
import { nodeCommands } from './node.ts'
import { etcdCommands } from './etcd.ts'
import { migrate } from './migrate.ts'
import { podCommands } from './pod.ts'
import { reset } from './reset.ts'
import { encryptionCommands } from './secrets-encryption.ts'
import { server } from './server.ts'
import { snapshotCommands } from './snapshot.ts'
import { start } from './start.ts'
import { status } from './status.ts'
import { stop } from './stop.ts'
import { tokenCommands } from './token.ts'
import { version } from './version.ts'

export const commands: Commands = {
  all: [
    server,
    agent,
    kubelet,
    datastore,
    status,
    stop,
    check,
    reset,
    migrate,
    ...clusterCommands,
    ...dbCommands,
    ...snapshotCommands,
    ...etcdCommands,
    ...encryptionCommands,
    ...labCommands,
    ...tokenCommands,
    ...nodeCommands,
    ...podCommands,
    version,
  ],
  default: start,
  external: ['kubectl', 'crictl', 'ctr'],
  groups: {
    cluster: 'Look after the cluster as a whole.',
    db: 'Look after the database by hand.',
    etcd: 'Look after the etcd of the servers.',
    lab: 'Try clusters of many nodes on one machine.',
    pod: 'See the pods of a kubelet alone, and what runs in them.',
    node: 'Drain and remove the nodes of the cluster.',
    'secrets-encryption': 'See and rotate the keys of Secrets.',
    snapshot: 'Take snapshots of the cluster, and go back to one.',
    token: 'Let other machines join the cluster.',
  },
}

const exitCodes: Readonly<Record<string, number>> = {
  USAGE: 2,
  CLUSTER_HAS_OTHER_KEYS: 2,
  ETCD_OF_ANOTHER_CLUSTER: 2,
  JOIN_CA_HASH: 2,
  JOIN_REFUSED: 2,
  JOIN_SIGNATURE: 2,
  JOIN_TOKEN: 2,
  JOIN_TOKEN_UNKNOWN: 2,
  NODE_REMOVED: 2,
  NODE_SKEW: 2,
  SINGLE_SERVER: 2,
  PAYLOAD_NEEDED: payloadNeededExitCode,
}

/** What the launcher asks where a configuration file has a form that it leaves to YAML's own reader (config-file.c). */
const tellDataDir = 'data-directory'

/** The streams and variables of the process, which tests replace. */
type Surroundings = Omit<Invocation, 'flags' | 'operands'>

/** Runs one command of the process' own and ends the process. */
export async function main(argv: readonly string[]): Promise<never> {
  // `k8s status | head -1` is no failure.
  process.stdout.on('error', (error) => process.exit(errorCode(error) === 'EPIPE' ? 0 : 1))
  const exitCode = await execute(argv, {
    environment: process.env,
    print: (text) => process.stdout.write(text),
    // The daemon must come to its end, too, when nobody reads why.
    complain: (text) => new BoundedWriter({ fd: 2, tellLeftOut: () => '' }).write(text),
  })
  process.exit(exitCode)
}

/** Returns the exit code: 0 ok, 1 failure, 2 bad input, and what the launcher acts upon. */
export async function execute(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  // A command that has to be unpacked runs again, and says again what it has to say.
  const held: string[] = []
  const isHeld = isBeforeUnpacking(surroundings.environment)
  const complain = isHeld ? (text: string) => held.push(text) : surroundings.complain
  let exitCode = 0
  try {
    exitCode = await run(argv, { ...surroundings, complain })
  } catch (error) {
    const code = errorCode(error) ?? ''
    exitCode = exitCodes[code] ?? 1
    if (code === 'PAYLOAD_NEEDED') return exitCode
    complain(`k8s: ${lineOf(error)}\n`)
  }
  held.forEach((text) => surroundings.complain(text))
  return exitCode
}

async function run(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const { environment, print } = surroundings
  if (environment['K8S_LAUNCHER'] === tellDataDir) {
    print(`${await loadDataDir({ flags: [], environment })}\n`)
    return 0
  }
  const request = parseArguments(argv, commands)
  switch (request.kind) {
    case 'help':
      print(`${await helpFor(request)}\n`)
      return 0
    case 'version':
      return version.handler({ ...surroundings, flags: [], operands: [] })
    case 'run':
      return request.command.handler({ ...surroundings, flags: request.flags, operands: request.operands })
  }
}

async function helpFor({ command, group }: Extract<Request, { kind: 'help' }>): Promise<string> {
  const { renderCommand, renderCommands, renderGroup } = await import('./help.ts')
  if (command !== undefined) return renderCommand(command, commands)
  return group === undefined ? renderCommands(commands) : renderGroup(group, commands)
}

/** One line with the remedy for what was foreseen; all there is for what was not. */
function lineOf(error: unknown): string {
  if (!(error instanceof AppError))
    return error instanceof Error ? (error.stack ?? error.message) : String(error)
  const { remedy } = error
  const advice = remedy === undefined ? '' : `. ${remedy.slice(0, 1).toUpperCase()}${remedy.slice(1)}`
  return `${describeError(error)}${advice}`.replaceAll('\n', ' ')
}
