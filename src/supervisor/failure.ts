import { describeError } from '../base/errors.ts'
import { type LineFormat, readHeader } from './log-formats.ts'
import { describePortHolder, findPortHolders, type PortHolder, portsInUse, saysInUse } from './ports.ts'
import { describeExit, type ProcessExit } from './spawn.ts'

/** The lines that a failure keeps of those that the process printed. */
const failureLinesLimit = 20

/** The characters of the telling line within the message. */
const reasonLengthLimit = 500

/** Why a process that should run does not. */
export interface ProcessFailure {
  /** ISO 8601 */
  readonly at: string
  /** One line: how it ended, after what time, who holds its port, and the line that tells why. */
  readonly message: string
  /** Neither code nor signal: it could not be spawned. */
  readonly exitCode?: number
  readonly signal?: string
  readonly uptimeMs?: number
  readonly lastLines: readonly string[]
  readonly portHolders: readonly PortHolder[]
}

/**
 * ports: those that the process listens on, for programs that do not name the one that is taken; killedFor: why the
 * supervisor itself ended it.
 */
export async function describeExitFailure({
  name,
  exit,
  lines,
  logFormat,
  ports = [],
  killedFor,
}: {
  name: string
  exit: ProcessExit
  lines: readonly string[]
  logFormat: LineFormat
  ports?: readonly number[]
  killedFor?: string | undefined
}): Promise<ProcessFailure> {
  const portHolders = lines.some(saysInUse) ? await findHolders(lines, ports) : []
  const reason = killedFor ?? tellingLine(lines, logFormat)
  const message = [
    `${name} ${describeExit(exit)} after ${describeTime(exit.uptimeMs)}`,
    ...portHolders.map(describePortHolder),
    ...(reason === undefined ? [] : [reason]),
  ].join('; ')
  return {
    at: new Date().toISOString(),
    message,
    ...(exit.code !== null && { exitCode: exit.code }),
    ...(exit.signal !== null && { signal: exit.signal }),
    uptimeMs: Math.round(exit.uptimeMs),
    lastLines: lines.slice(-failureLinesLimit),
    portHolders,
  }
}

/** A restart that failed before there was a process: no memory, no pids, the file is gone. */
export function describeSpawnFailure(name: string, thrown: unknown): ProcessFailure {
  return {
    at: new Date().toISOString(),
    message: `${name} was not started: ${describeError(thrown)}`,
    lastLines: [],
    portHolders: [],
  }
}

async function findHolders(lines: readonly string[], ports: readonly number[]): Promise<PortHolder[]> {
  const named = portsInUse(lines)
  // Where it cannot be found out (too many open files), the failure is told without.
  return findPortHolders(named.length > 0 ? named : ports).catch(() => [])
}

/**
 * The last error that it printed, without its header, one that it died of before all others, with its cause before
 * Go's panic of it; when it printed none, its last line.
 */
function tellingLine(lines: readonly string[], logFormat: LineFormat): string | undefined {
  const headers = lines.map((line) => ({ line, ...readHeader(logFormat, line) }))
  const found =
    headers.findLast(({ level, headed }) => level === 'fatal' && headed) ??
    headers.findLast(({ level }) => level === 'fatal') ??
    headers.findLast(({ level }) => level === 'error')
  const line = found?.line ?? lines.at(-1)
  if (line === undefined) return undefined
  const { message, fields } = readHeader(logFormat, line).parse(line)
  const cause = fields['err'] ?? fields['error']
  return (typeof cause === 'string' ? `${message}: ${cause}` : message).slice(0, reasonLengthLimit)
}

/** 340 ms, 12.5 s, 3 min, 50 h */
function describeTime(timeMs: number): string {
  if (timeMs < 1_000) return `${Math.round(timeMs)} ms`
  if (timeMs < 120_000) return `${(timeMs / 1_000).toFixed(1)} s`
  return timeMs < 7_200_000 ? `${Math.floor(timeMs / 60_000)} min` : `${Math.floor(timeMs / 3_600_000)} h`
}
