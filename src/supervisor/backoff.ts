/** How long to wait before a failed process is started again. */
export interface Backoff {
  readonly initialDelayMs: number
  readonly maximumDelayMs: number
  /** full: anything from nothing to the whole delay; equal: its second half at least. */
  readonly jitter: 'full' | 'equal'
  /** A process that has run this long starts again with initialDelayMs. */
  readonly healthyAfterMs: number
  /** In [0, 1), as Math.random. */
  readonly random: () => number
}

/**
 * The first restart is all but immediate, because most exits are single ones (an operator's kill,
 * the kernel's out-of-memory killer); a process that keeps failing settles at two starts a minute.
 */
export const defaultBackoff: Backoff = {
  initialDelayMs: 100,
  maximumDelayMs: 30_000,
  jitter: 'equal',
  healthyAfterMs: 60_000,
  random: Math.random,
}

/** The delay in whole milliseconds before the restart that follows `failuresInRow` (1, 2, ...) failures. */
export function backoffDelayMs(
  { initialDelayMs, maximumDelayMs, jitter, random }: Backoff,
  failuresInRow: number,
): number {
  const wholeMs = Math.min(initialDelayMs * 2 ** (failuresInRow - 1), maximumDelayMs)
  const fixedMs = jitter === 'equal' ? wholeMs / 2 : 0
  return Math.round(fixedMs + random() * (wholeMs - fixedMs))
}
