import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import type { Storage } from '../storage/storage.ts'

/** The service manager waits for three of them. */
const feedsPerInterval = 3

/**
 * Tells the service manager that this thread and the storage's go round, until it is disposed of. When one of them
 * hangs it is told nothing more, and starts the daemon again.
 */
export function feedWatchdog({
  notify,
  storage,
  log,
}: {
  notify: Pick<Notifier, 'watchdog' | 'watchdogMs'>
  storage: Pick<Storage, 'ping'>
  log: Logger
}): Disposable {
  const ended = new AbortController()
  if (notify.watchdogMs !== undefined) void feed(notify.watchdogMs / feedsPerInterval, ended.signal)
  return { [Symbol.dispose]: () => ended.abort() }

  async function feed(intervalMs: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const late = setTimeout(
        () => log.warn({ waitedMs: intervalMs }, 'the storage does not answer'),
        intervalMs,
      )
      late.unref()
      await storage.ping()
      clearTimeout(late)
      if (!signal.aborted) notify.watchdog()
      await sleep(intervalMs, undefined, { signal }).catch(() => {})
    }
  }
}
