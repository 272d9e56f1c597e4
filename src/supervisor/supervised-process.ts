import { AppError, assert, describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { type Backoff, backoffDelayMs, defaultBackoff } from './backoff.ts'
import { describeExitFailure, describeSpawnFailure, type ProcessFailure } from './failure.ts'
import { endRecorded } from './leftovers.ts'
import type { LineFormat } from './log-formats.ts'
import { ProcessLog, type RecordListener } from './logs.ts'
import { type ProcessCommand, type ProcessExit, type RunningProcess, spawnProcess } from './spawn.ts'
import { processMarks, removeRecord, writeRecord } from './records.ts'
import { idle, next, type ProcessEvent, type ProcessPhase, type ProcessState } from './state.ts'

/** After SIGKILL only a system call that hangs keeps a process; its operator should hear of it. */
const killedWarningMs = 5_000

/** A process that has ended so often in a row is not taken for well before it has outlived its last life, and this time. */
const failuresUntilTold = 3
const shortestTrialMs = 10_000

/** The lines of a failure that its log record repeats. */
const loggedLinesLimit = 10

/** command, args, env (the whole environment, to which marks are added) and cwd as in ProcessCommand. */
export interface ProcessSpec extends ProcessCommand {
  /** Lower-case words with hyphens: the component's name in records, marks and the log. */
  readonly name: string
  readonly logFormat: LineFormat
  readonly onRecord?: RecordListener | undefined
  /** From SIGTERM to SIGKILL. */
  readonly stopTimeoutMs: number
  /** Where the daemon's successor finds what runs; made when missing. */
  readonly recordDir: string
  /** Whose holder is named when the process says that an address is in use and not which. */
  readonly ports?: readonly number[]
}

export interface ProcessStatus {
  readonly name: string
  readonly state: ProcessPhase
  readonly pid?: number
  /** Since start(). */
  readonly restarts: number
  /** When it came into this state; ISO 8601. */
  readonly since: string
  /** Why a process that runs is not ready, as far as its probe has told; or why one that is ready may not be so for long. */
  readonly reason?: string
  readonly lastFailure?: ProcessFailure
}

type ProcessListener = (status: ProcessStatus) => void

/** Keeps one process running from start() to stop(). Its states are those of state.ts. */
export class SupervisedProcess {
  readonly #spec: ProcessSpec
  readonly #log: Logger
  readonly #backoff: Backoff
  readonly #listeners = new Set<ProcessListener>()
  #state: ProcessState = idle
  #since = new Date()
  #lastFailure: ProcessFailure | undefined
  #reason: string | undefined
  /** Why a process was killed that should run. */
  #killedFor: string | undefined
  #child: RunningProcess | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #killTimer: NodeJS.Timeout | undefined
  #hurry = new AbortController()
  #gone = Promise.withResolvers<void>()

  /** backoff: what differs from defaultBackoff. */
  constructor(spec: ProcessSpec, { log, backoff = {} }: { log: Logger; backoff?: Partial<Backoff> }) {
    assert(/^[a-z0-9]+(-[a-z0-9]+)*$/.test(spec.name), `process name ${spec.name}`)
    this.#spec = spec
    this.#log = log.child({ component: spec.name })
    this.#backoff = { ...defaultBackoff, ...backoff }
  }

  /**
   * Resolves when the process has been spawned; from then on it is started again whenever it exits.
   * What an earlier daemon left running under this name is ended first. Rejects, with nothing left
   * running, when it cannot be spawned (SPAWN_FAILED), when another daemon has it (PROCESS_OWNED),
   * when it runs already (PROCESS_STARTED) and when it is stopped meanwhile (PROCESS_STOPPED).
   */
  async start(): Promise<void> {
    const { name } = this.#spec
    if (!this.#apply({ type: 'start' })) {
      throw new AppError(`cannot start ${name}: it is ${this.#state.phase}`, { code: 'PROCESS_STARTED' })
    }
    this.#hurry = new AbortController()
    this.#gone = Promise.withResolvers()
    this.#lastFailure = undefined
    try {
      await this.#spawn()
    } catch (error) {
      this.#apply({ type: 'notSpawned' })
      throw error
    }
  }

  /**
   * SIGTERM, then SIGKILL after spec.stopTimeoutMs or at once when `signal` fires. Resolves when the
   * process is gone. Legal in every state and repeatable: a later call with a signal that fires
   * hurries an earlier one.
   */
  async stop(signal: AbortSignal): Promise<void> {
    this.#apply({ type: 'stop' })
    if (this.#state.phase === 'idle' || this.#state.phase === 'stopped') return
    const hurry = () => this.#kill()
    if (signal.aborted) hurry()
    signal.addEventListener('abort', hurry)
    await this.#gone.promise
    signal.removeEventListener('abort', hurry)
  }

  /** Its component found that it does its work. None of these has an effect on a process that does not run. */
  markReady(): void {
    this.#mark('ready', undefined)
  }

  /** It answers, and says or shows that it does not do its work. */
  markNotReady(reason: string): void {
    this.#mark('notReady', reason)
  }

  /** It does not answer. */
  markUnresponsive(reason: string): void {
    this.#mark('silent', reason)
  }

  /** Kills a process that hangs; it is started again as after any other exit. `reason` is told as its failure. */
  killUnresponsive(reason: string): void {
    if (this.#child === undefined || this.#state.phase !== 'unresponsive') return
    this.#log.error({ pid: this.#child.pid, reason }, 'does not answer; killing it')
    this.#killedFor = reason
    this.#sendKill(this.#child)
  }

  status(): ProcessStatus {
    const state = this.#state
    const reason = this.#reason ?? this.#instability()
    return {
      name: this.#spec.name,
      state: state.phase,
      ...('pid' in state && state.pid !== undefined && { pid: state.pid }),
      restarts: 'restarts' in state ? state.restarts : 0,
      since: this.#since.toISOString(),
      ...(reason !== undefined && { reason }),
      ...(this.#lastFailure !== undefined && { lastFailure: this.#lastFailure }),
    }
  }

  /** Calls the listener after every change of the state, until disposed of. */
  onChange(listener: ProcessListener): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** One that answers and ends soon after, again and again, would be shown as ready whenever somebody looks. */
  #instability(): string | undefined {
    const state = this.#state
    if (state.phase !== 'ready' || state.failuresInRow < failuresUntilTold) return undefined
    const lastLifeMs = this.#lastFailure?.uptimeMs ?? 0
    const trialMs = Math.min(Math.max(2 * lastLifeMs, shortestTrialMs), this.#backoff.healthyAfterMs)
    if (Date.now() - this.#since.getTime() >= trialMs) return undefined
    return `it has ended ${state.failuresInRow} times in a row: ${this.#lastFailure?.message}`
  }

  #mark(type: 'ready' | 'notReady' | 'silent', reason: string | undefined): void {
    if (this.#child === undefined || this.#state.phase === 'stopping') return
    this.#reason = reason
    this.#apply({ type })
  }

  /** Whether the event changed the state. */
  #apply(event: ProcessEvent): boolean {
    const before = this.#state
    this.#state = next(before, event)
    if (this.#state === before) return false
    if (this.#state.phase !== before.phase) this.#since = new Date()
    this.#enter()
    this.#notify()
    return true
  }

  /** A listener that throws is a bug, but not one that may end the supervision. */
  #notify(): void {
    for (const listener of this.#listeners) {
      try {
        listener(this.status())
      } catch (error) {
        this.#log.error({ error: describeError(error) }, 'a listener of the process failed')
      }
    }
  }

  /** What a state does when it is entered; the others are left by their owners' events. */
  #enter(): void {
    switch (this.#state.phase) {
      case 'backoff':
        this.#scheduleRetry(this.#state.failuresInRow)
        break
      case 'stopping':
        this.#terminate()
        break
      case 'stopped':
        clearTimeout(this.#retryTimer)
        clearTimeout(this.#killTimer)
        this.#gone.resolve()
        break
      case 'idle':
      case 'starting':
      case 'running':
      case 'ready':
      case 'unresponsive':
        break
    }
  }

  async #spawn(): Promise<void> {
    const { name, recordDir, stopTimeoutMs, logFormat, onRecord, env } = this.#spec
    await endRecorded(name, { recordDir, stopTimeoutMs, log: this.#log, signal: this.#hurry.signal })
    if (this.#state.phase !== 'starting') {
      throw new AppError(`cannot start ${name}: it was stopped`, { code: 'PROCESS_STOPPED' })
    }
    const output = new ProcessLog({ log: this.#log, format: logFormat, onRecord })
    const child = await spawnProcess(
      { ...this.#spec, env: { ...env, ...processMarks(this.#spec) } },
      {
        onStdout: (chunk) => output.write('stdout', chunk),
        onStderr: (chunk) => output.write('stderr', chunk),
      },
    )
    this.#child = child
    this.#record(child.pid)
    const { restarts } = this.#state
    this.#log.info({ pid: child.pid, restarts }, restarts > 0 ? 'restarted' : 'started')
    this.#apply({ type: 'spawned', pid: child.pid })
    void child.exited.then((exit) => this.#exited(exit, output))
  }

  /**
   * undefined: it has gone. A full disk must not keep a component down: the process would still be
   * found by its marks, and a record that stays names a process that is not there.
   */
  #record(pid: number | undefined): void {
    const { name, recordDir } = this.#spec
    try {
      if (pid === undefined) removeRecord(recordDir, name)
      else writeRecord(recordDir, { name, pid })
    } catch (error) {
      this.#log.warn({ recordDir, error: describeError(error) }, 'cannot keep the record of the process')
    }
  }

  async #exited(exit: ProcessExit, output: ProcessLog): Promise<void> {
    output.end()
    clearTimeout(this.#killTimer)
    this.#child = undefined
    this.#reason = undefined
    const killedFor = this.#killedFor
    this.#killedFor = undefined
    this.#record(undefined)
    if (this.#state.phase !== 'stopping') {
      const lines = output.lastLines.list()
      this.#lastFailure = await describeExitFailure({ ...this.#spec, exit, lines, killedFor })
    }
    if (this.#state.phase === 'stopping') {
      const { code, signal, uptimeMs } = exit
      this.#log.info({ exitCode: code, signal, uptimeMs: Math.round(uptimeMs) }, 'stopped')
    }
    const healthy = killedFor === undefined && exit.uptimeMs >= this.#backoff.healthyAfterMs
    this.#apply({ type: 'exited', healthy })
  }

  #scheduleRetry(failuresInRow: number): void {
    const delayMs = backoffDelayMs(this.#backoff, failuresInRow)
    const { message, exitCode, signal, uptimeMs, lastLines } = this.#lastFailure!
    const fields = { exitCode, signal, uptimeMs, retryMs: delayMs, failuresInRow }
    this.#log.error({ ...fields, lastLines: lastLines.slice(-loggedLinesLimit) }, message)
    this.#retryTimer = setTimeout(() => void this.#retry(), delayMs)
  }

  async #retry(): Promise<void> {
    this.#apply({ type: 'retry' })
    try {
      await this.#spawn()
    } catch (error) {
      // Otherwise it was stopped, which is no failure.
      if (this.#state.phase === 'starting') this.#lastFailure = describeSpawnFailure(this.#spec.name, error)
      this.#apply({ type: 'notSpawned' })
    }
  }

  #terminate(): void {
    // Not spawned yet: the event that follows ends it.
    if (this.#child === undefined) return
    if (this.#hurry.signal.aborted) return this.#kill()
    this.#child.kill('SIGTERM')
    clearTimeout(this.#killTimer)
    this.#killTimer = setTimeout(() => {
      this.#log.warn({ stopTimeoutMs: this.#spec.stopTimeoutMs }, 'did not stop in time; killing it')
      this.#kill()
    }, this.#spec.stopTimeoutMs)
  }

  #kill(): void {
    this.#hurry.abort()
    if (this.#child !== undefined) this.#sendKill(this.#child)
  }

  #sendKill(child: RunningProcess): void {
    clearTimeout(this.#killTimer)
    child.kill('SIGKILL')
    this.#killTimer = setTimeout(() => {
      this.#log.error({ pid: child.pid }, 'still there after SIGKILL: it hangs in a system call')
    }, killedWarningMs)
  }
}
