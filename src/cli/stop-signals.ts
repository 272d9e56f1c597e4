import type { Environment } from '../config/table/sources.ts'

/**
 * The first of these signals aborts `stop`; the second one `hurry`; later ones change nothing. A closed
 * terminal (SIGHUP) counts, unless nohup says that it does not, which only the launcher sees.
 */
export function stopSignals(environment: Environment): { stop: AbortSignal; hurry: AbortSignal } {
  const stop = new AbortController()
  const hurry = new AbortController()
  const abort = (name: string): void => {
    if (stop.signal.aborted) hurry.abort(name)
    else stop.abort(name)
  }
  process.on('SIGTERM', abort)
  process.on('SIGINT', abort)
  process.on('SIGHUP', (name) => {
    if (environment['K8S_HANGUP_IGNORED'] === undefined) abort(name)
  })
  return { stop: stop.signal, hurry: hurry.signal }
}
