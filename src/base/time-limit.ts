import { AppError } from './errors.ts'

/**
 * Fires after `ms` with an error that names what took too long and the limit: "cannot ACTION within N s".
 * AbortSignal.timeout says neither. Its timer keeps no process alive.
 */
export class TimeLimit implements Disposable {
  readonly signal: AbortSignal
  readonly #fire: () => void
  readonly #ms: number
  #timer: NodeJS.Timeout | undefined

  constructor(action: string, ms: number) {
    const limit = new AbortController()
    this.signal = limit.signal
    this.#ms = ms
    this.#fire = () =>
      limit.abort(new AppError(`cannot ${action} within ${ms / 1000} s`, { code: 'TIME_LIMIT' }))
    this.begin()
  }

  /** The time begins anew. */
  begin(): void {
    this.pause()
    this.#timer = setTimeout(this.#fire, this.#ms).unref()
  }

  pause(): void {
    clearTimeout(this.#timer)
  }

  [Symbol.dispose](): void {
    this.pause()
  }
}
