import { setTimeout as sleep } from 'node:timers/promises'

/** Timers cannot be longer. */
const longestMs = 2 ** 31 - 1

/** Of whoever waits for something to happen: what happened before he waits counts, too. */
export class Wakeup {
  #happened = new AbortController()

  wake(): void {
    this.#happened.abort()
  }

  /** Resolves when something has happened since the last time, or the time is over. Rejects when the signal fires. */
  async wait(limitMs: number | undefined, signal: AbortSignal): Promise<void> {
    const until = AbortSignal.any([signal, this.#happened.signal])
    await sleep(limitMs ?? longestMs, undefined, { signal: until, ref: false }).catch(() => {})
    signal.throwIfAborted()
    this.#happened = new AbortController()
  }
}
