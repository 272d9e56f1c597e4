import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Capability } from '../components/component.ts'

/** What runs beside the components and ends with them. A failure of it is told, and ends nothing else. */
export class TaskGroup {
  readonly #signal: AbortSignal
  readonly #log: Logger
  readonly #tasks: Promise<void>[] = []

  constructor({ log, signal }: { log: Logger; signal: AbortSignal }) {
    this.#log = log
    this.#signal = signal
  }

  begin(purpose: string, task: () => Promise<void>): void {
    this.#tasks.push(
      task().catch((error: unknown) => {
        if (!this.#signal.aborted) this.#log.error({ reason: describeError(error) }, `cannot ${purpose}`)
      }),
    )
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
