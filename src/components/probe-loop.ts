import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { readStat } from '../base/proc.ts'
import { describePortHolder, findStrangers } from '../supervisor/ports.ts'
import type { SupervisedProcess } from '../supervisor/supervised-process.ts'

/*
 * One loop for one life of a process, from its spawn to its end:
 *
 *    not ready      asked often at first, then ever more rarely: the interval is a part of the time that it takes,
 *                   so that nothing that becomes ready waits for long, measured by what it took
 *    ready          asked at a calm interval
 *    no answer      marked after `failuresBeforeUnresponsive`, killed after `hangLimitMs`
 *    a stranger's   whoever has one of its ports answers, or keeps silent, in its place: told, and nobody is killed for it
 *
 * An answer that says no (a Node that is not Ready) is an answer: such a process is not ready, and lives.
 */

/** Resolves when the component does its work, rejects with the reason why not. */
export type Probe = (signal: AbortSignal) => Promise<void>

export interface ProbeTiming {
  readonly shortestIntervalMs: number
  readonly longestIntervalMs: number
  /** The part of the time without readiness that passes between two probes. */
  readonly intervalShare: number
  /** Between two probes of a process that is ready. */
  readonly calmIntervalMs: number
  /** A probe that takes longer has failed: while it is awaited for the first time, and later. */
  readonly firstTimeoutMs: number
  readonly timeoutMs: number
  /** Failures in a row after which a process that has answered before does not answer any more. */
  readonly failuresBeforeUnresponsive: number
  /** How long the first answer of a process may take: a machine can be very slow. */
  readonly firstAnswerLimitMs: number
  /** How often it is looked at who has its ports while it does not answer: that reads what all processes have open. */
  readonly portsIntervalMs: number
}

export const defaultTiming: ProbeTiming = {
  shortestIntervalMs: 50,
  longestIntervalMs: 2_000,
  intervalShare: 1 / 50,
  calmIntervalMs: 10_000,
  firstTimeoutMs: 2_000,
  timeoutMs: 5_000,
  failuresBeforeUnresponsive: 3,
  firstAnswerLimitMs: 600_000,
  portsIntervalMs: 10_000,
}

export interface ProbeLoopOptions {
  readonly supervised: SupervisedProcess
  /** Whether it does its work. */
  readonly probe: Probe
  /** Whether it answers at all, where that is less than `probe` asks. */
  readonly alive?: Probe | undefined
  /** How long a process that has answered before may be silent until it is killed, ms. */
  readonly hangLimitMs: number
  /** Those that it listens on. */
  readonly ports: readonly number[]
  readonly timing: ProbeTiming
  readonly log: Logger
  /** Aborted when this process has ended. */
  readonly life: AbortSignal
}

/** Probes one process until its life ends, and tells the supervisor what it finds. Never rejects. */
export async function probeLoop(options: ProbeLoopOptions): Promise<void> {
  const { supervised, timing, life, log } = options
  const hang = new HangWatch(options)
  let hasAnswered = false
  let notReadySinceMs: number | undefined = performance.now()
  for (;;) {
    const { isAlive, reason } = await look(options, { hasAnswered, isFailing: notReadySinceMs !== undefined })
    if (life.aborted) return
    if (reason === undefined) {
      if (hasAnswered && notReadySinceMs !== undefined) log.info('is ready again')
      hasAnswered = true
      notReadySinceMs = undefined
      supervised.markReady()
    } else {
      if (notReadySinceMs === undefined) log.warn({ reason }, 'is not ready any more')
      notReadySinceMs ??= performance.now()
    }
    if (isAlive) {
      hang.answered()
      if (reason !== undefined) supervised.markNotReady(reason)
    } else await hang.failed(reason!)
    if (life.aborted) return
    const notReadyMs = notReadySinceMs === undefined ? undefined : performance.now() - notReadySinceMs
    await pause(probeIntervalMs(timing, notReadyMs), life)
  }
}

interface Finding {
  readonly isAlive: boolean
  /** undefined: it is ready. */
  readonly reason?: string | undefined
}

async function look(
  { probe, alive, timing, life }: ProbeLoopOptions,
  { hasAnswered, isFailing }: { hasAnswered: boolean; isFailing: boolean },
): Promise<Finding> {
  const timeoutMs = hasAnswered ? timing.timeoutMs : timing.firstTimeoutMs
  const ask = (question: Probe) => askWithin(question, timeoutMs, life)
  if (alive === undefined) {
    const reason = await ask(probe)
    return { isAlive: reason === undefined, reason }
  }
  // Nobody listens for most of a start, and one question finds that out as well as two.
  if (!hasAnswered) {
    const silence = await ask(alive)
    return { isAlive: silence === undefined, reason: silence ?? (await ask(probe)) }
  }
  // One that was ready and is not any more may be silent to both: they are not waited for one after the other.
  const early = isFailing ? ask(alive) : undefined
  const reason = await ask(probe)
  if (reason === undefined) return { isAlive: true }
  if (life.aborted) return { isAlive: false, reason }
  return { isAlive: (await (early ?? ask(alive))) === undefined, reason }
}

/** Why the probe failed; undefined: it did not. A probe that heeds no signal is not waited for. */
async function askWithin(question: Probe, timeoutMs: number, life: AbortSignal): Promise<string | undefined> {
  const timeout = AbortSignal.timeout(timeoutMs)
  const signal = AbortSignal.any([life, timeout])
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort)
  try {
    signal.throwIfAborted()
    await Promise.race([question(signal), aborted.promise])
    return undefined
  } catch (error) {
    return timeout.aborted ? `no answer within ${timeoutMs} ms` : describeError(error)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Counts what a silent process costs it. */
class HangWatch {
  readonly #options: ProbeLoopOptions
  readonly #bornAtMs = performance.now()
  #answeredAtMs: number | undefined
  #failures = 0
  #strangers = ''
  #lookAtMs: number

  constructor(options: ProbeLoopOptions) {
    this.#options = options
    this.#lookAtMs = this.#bornAtMs + options.timing.portsIntervalMs
  }

  answered(): void {
    this.#answeredAtMs = performance.now()
    this.#failures = 0
    this.#strangers = ''
  }

  /** Failures are counted beside the time: that of a daemon that was stopped itself is nobody's silence. */
  async failed(reason: string): Promise<void> {
    const { supervised, hangLimitMs, timing, life } = this.#options
    this.#failures += 1
    // One that is slow to answer for the first time gets on with it; one that was stopped (SIGSTOP) does not.
    const isExpected = this.#answeredAtMs !== undefined || isStopped(supervised.status().pid)
    const limitMs = isExpected ? hangLimitMs : timing.firstAnswerLimitMs
    const silentMs = performance.now() - (this.#answeredAtMs ?? this.#bornAtMs)
    const isSilent = this.#failures >= timing.failuresBeforeUnresponsive
    const isOverdue = isSilent && silentMs >= limitMs
    await this.#lookAtPorts({ isOverdue })
    if (life.aborted) return
    if (this.#strangers !== '') return supervised.markNotReady(`${this.#strangers}; ${reason}`)
    if (isOverdue || (isSilent && isExpected)) supervised.markUnresponsive(reason)
    else supervised.markNotReady(reason)
    if (isOverdue)
      supervised.killUnresponsive(`it has not answered for ${Math.round(silentMs / 1000)} s: ${reason}`)
  }

  async #lookAtPorts({ isOverdue }: { isOverdue: boolean }): Promise<void> {
    const { supervised, ports, timing } = this.#options
    const { pid } = supervised.status()
    if (pid === undefined || (!isOverdue && performance.now() < this.#lookAtMs)) return
    // Where it cannot be found out (too many open files), nobody is known.
    const strangers = await findStrangers(ports, pid).catch(() => [])
    this.#strangers = strangers.map(describePortHolder).join('; ')
    this.#lookAtMs = performance.now() + timing.portsIntervalMs
  }
}

function isStopped(pid: number | undefined): boolean {
  return pid !== undefined && readStat(pid)?.state === 'T'
}

/** Between two probes, by the time without readiness; undefined: it is ready. */
export function probeIntervalMs(timing: ProbeTiming, notReadyMs: number | undefined): number {
  if (notReadyMs === undefined) return timing.calmIntervalMs
  const shareMs = notReadyMs * timing.intervalShare
  return Math.min(Math.max(shareMs, timing.shortestIntervalMs), timing.longestIntervalMs)
}

/** Ends with the life. */
async function pause(timeMs: number, life: AbortSignal): Promise<void> {
  await sleep(timeMs, undefined, { signal: life }).catch(() => {})
}
