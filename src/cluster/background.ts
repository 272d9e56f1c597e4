import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Capability } from '../components/component.ts'

/** Between the failure of a task and its next try. */
const defaultRetryMs = 60_000

/** What runs beside the components and ends with them. A failure of it is told, ends nothing else, and is not its end. */
export class TaskGroup {
  readonly #signal: AbortSignal
  readonly #log: Logger
  readonly #retryMs: number
  readonly #tasks: Promise<void>[] = []

  /** retryMs: what differs from a minute. */
  constructor({
    log,
    signal,
    retryMs = defaultRetryMs,
  }: { log: Logger; signal: AbortSignal; retryMs?: number }) {
    this.#log = log
    this.#signal = signal
    this.#retryMs = retryMs
  }

  /**
   * One that fails, as on a disk that was full for a moment, is begun anew after a while. `onTrouble` is told of the reason
   * why it does not run, and with undefined that it does.
   */
  begin(purpose: string, task: () => Promise<void>, onTrouble?: (reason: string | undefined) => void): void {
    this.#tasks.push(this.#run(purpose, task, onTrouble))
  }

  async #run(
    purpose: string,
    task: () => Promise<void>,
    onTrouble: (reason: string | undefined) => void = () => {},
  ): Promise<void> {
    while (!this.#signal.aborted) {
      const failure = await task().then(() => undefined, describeError)
      if (failure === undefined || this.#signal.aborted) return
      this.#log.error({ reason: failure, retryMs: this.#retryMs }, `cannot ${purpose}; it is tried again`)
      onTrouble(`cannot ${purpose}: ${failure}`)
      await sleep(this.#retryMs, undefined, { signal: this.#signal, ref: false }).catch(() => {})
      onTrouble(undefined)
    }
  }

  /** Returns when all have ended, or after the limit: one that hangs holds nobody up. */
  async settled(limitMs: number): Promise<void> {
    const over = new AbortController()
    const limit = sleep(limitMs, 'late', { signal: over.signal }).catch(() => undefined)
    if ((await Promise.race([Promise.all(this.#tasks), limit])) === 'late') {
      this.#log.warn({ limitMs }, 'went on without a task that does not end')
    }
    over.abort()
  }
}

/** Which capabilities have been there, for those who wait for one. */
export class Readiness {
  readonly #signal: AbortSignal
  readonly #reached = new Map<Capability, PromiseWithResolvers<void>>()

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  /** Rejects when the signal fires before. */
  of(capability: Capability): Promise<void> {
    const { promise, reject } = this.#entry(capability)
    if (this.#signal.aborted) reject(this.#signal.reason)
    this.#signal.addEventListener('abort', () => reject(this.#signal.reason), { once: true })
    return promise
  }

  reached(capability: Capability): void {
    this.#entry(capability).resolve()
  }

  #entry(capability: Capability): PromiseWithResolvers<void> {
    const entry = this.#reached.get(capability) ?? Promise.withResolvers<void>()
    this.#reached.set(capability, entry)
    return entry
  }
}
