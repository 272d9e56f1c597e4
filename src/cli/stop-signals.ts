import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { parseMask } from '../base/proc.ts'

/**
 * The first of these signals aborts `stop`; the second one `hurry`; later ones change nothing. A closed
 * terminal (SIGHUP) counts, unless nohup says that it does not.
 */
export function stopSignals(): { stop: AbortSignal; hurry: AbortSignal } {
  const stop = new AbortController()
  const hurry = new AbortController()
  const names = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const
  for (const name of names.filter((candidate) => !isIgnored(constants.signals[candidate]))) {
    process.on(name, () => {
      if (stop.signal.aborted) hurry.abort(name)
      else stop.abort(name)
    })
  }
  return { stop: stop.signal, hurry: hurry.signal }
}

/** As whoever started this process left it; a handler of ours would undo that. */
function isIgnored(signal: number): boolean {
  const mask = parseMask(readFileSync('/proc/self/status', 'utf8'), 'SigIgn')
  return ((mask >> BigInt(signal - 1)) & 1n) === 1n
}
