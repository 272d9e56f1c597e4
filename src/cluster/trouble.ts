import { AppError, describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Board } from './condition.ts'

export interface TroubleOptions {
  /** Of the part in `k8s status`. */
  readonly name: string
  /** What is attempted, as the end of "cannot ...". */
  readonly purpose: string
  readonly board: Pick<Board, 'report' | 'forget'>
  readonly log: Pick<Logger, 'error' | 'info'>
  /** When it is tried again; default: soon. */
  readonly next?: string
}

/**
 * Of what is tried again and again: what is wrong with it is a part of `k8s status` until it works, and stands in the log
 * once for each reason.
 */
export class Trouble {
  readonly #options: TroubleOptions
  #told: string | undefined

  constructor(options: TroubleOptions) {
    this.#options = options
  }

  /** Whether it worked. Rejects when the signal has fired meanwhile. */
  async attempt(work: () => Promise<unknown> | void, signal: AbortSignal): Promise<boolean> {
    try {
      await work()
    } catch (error) {
      signal.throwIfAborted()
      this.#tell(error)
      return false
    }
    this.#over()
    return true
  }

  #tell(error: unknown): void {
    const { name, purpose, board, log, next = 'it is tried again' } = this.#options
    const reason = describeError(error)
    const remedy = error instanceof AppError ? error.remedy : undefined
    const message = remedy === undefined ? reason : `${reason}; ${remedy}`
    board.report({ name, state: 'degraded', message })
    if (message !== this.#told) log.error({ reason, remedy }, `cannot ${purpose}; ${next}`)
    this.#told = message
  }

  #over(): void {
    if (this.#told === undefined) return
    const { name, purpose, board, log } = this.#options
    this.#told = undefined
    board.forget(name)
    log.info(`can ${purpose} again`)
  }
}
