import { setTimeout as sleep } from 'node:timers/promises'

/** A condition that is asked again and again until it gives a value; errors count as "not yet". */
export interface WaitOptions {
  readonly timeoutMs?: number
  readonly intervalMs?: number
  /** Says why waiting longer is in vain; its error is thrown at once. */
  readonly giveUp?: () => Error | undefined
}

/**
 * Polls until `condition` gives something other than undefined, null or false, and returns that.
 * When the bound is reached the error names what was waited for and the last failure.
 */
export async function waitFor<Value>(
  what: string,
  condition: () => Promise<Value | undefined | null | false> | Value | undefined | null | false,
  { timeoutMs = 60_000, intervalMs = 200, giveUp }: WaitOptions = {},
): Promise<Value> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    let last: unknown = 'it was not so'
    try {
      const value = await condition()
      if (value !== undefined && value !== null && value !== false) return value
    } catch (error) {
      last = error
    }
    const vain = giveUp?.()
    if (vain !== undefined) throw vain
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain until ${what}`, { cause: last })
    }
    await sleep(intervalMs)
  }
}
