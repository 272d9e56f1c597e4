import type { Logger } from './logger.ts'

/** How often one message is told. */
const intervalMs = 10_000

/**
 * For trouble that comes in from outside, as often as somebody pleases: each kind of it is told once in a while, with
 * the number of those that were left out. Kinds are few; a message that is always the same is its own.
 */
export class RareLog {
  readonly #log: Pick<Logger, 'warn' | 'error'>
  readonly #told = new Map<string, { atMs: number; leftOut: number }>()

  constructor(log: Pick<Logger, 'warn' | 'error'>) {
    this.#log = log
  }

  warn(fields: object, message: string, kind = message): void {
    const all = this.#fieldsOf(fields, kind)
    if (all !== undefined) this.#log.warn(all, message)
  }

  error(fields: object, message: string, kind = message): void {
    const all = this.#fieldsOf(fields, kind)
    if (all !== undefined) this.#log.error(all, message)
  }

  /** undefined: it was told just now. */
  #fieldsOf(fields: object, kind: string): object | undefined {
    const nowMs = performance.now()
    const last = this.#told.get(kind)
    if (last !== undefined && nowMs - last.atMs < intervalMs) {
      last.leftOut++
      return undefined
    }
    this.#told.set(kind, { atMs: nowMs, leftOut: 0 })
    return last === undefined || last.leftOut === 0 ? fields : { ...fields, leftOut: last.leftOut }
  }
}
