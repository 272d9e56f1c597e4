import { writeSync } from 'node:fs'

/**
 * What a service manager is told (sd_notify(3)). It stands in base, since the start of the cluster
 * knows what to tell and only the command knows whether there is somebody to tell it to.
 */
export interface Notifier {
  readonly ready: () => void
  readonly stopping: () => void
  /** The start goes on: it must be done, or this be said again, within so many ms. */
  readonly extendTimeout: (ms: number) => void
  /** One line for `systemctl status`. */
  readonly status: (text: string) => void
  /** It lives. */
  readonly watchdog: () => void
  /** How often that has to be said; undefined: nobody waits for it. */
  readonly watchdogMs: number | undefined
}

/**
 * Writes to the datagram socket that the launcher connected, as Node has no Unix datagrams. Without
 * one it tells nobody. A service manager that went away is no reason to fail.
 */
export function createNotifier(environment: Readonly<Record<string, string | undefined>>): Notifier {
  const fd = positiveInteger(environment['K8S_NOTIFY_FD'])
  const tell = (line: string): void => {
    if (fd === undefined) return
    try {
      writeSync(fd, line)
    } catch {
      // Its queue is full, or it is gone.
    }
  }
  return {
    ready: () => tell('READY=1'),
    stopping: () => tell('STOPPING=1'),
    extendTimeout: (ms) => tell(`EXTEND_TIMEOUT_USEC=${ms * 1000}`),
    status: (text) => tell(`STATUS=${text.replaceAll('\n', ' ')}`),
    watchdog: () => tell('WATCHDOG=1'),
    watchdogMs: fd === undefined ? undefined : watchdogMs(environment),
  }
}

/** sd_watchdog_enabled(3): what is meant for another process does not count. */
function watchdogMs(environment: Readonly<Record<string, string | undefined>>): number | undefined {
  const pid = environment['WATCHDOG_PID']
  const microseconds = positiveInteger(environment['WATCHDOG_USEC'])
  const isMeant = pid === undefined || Number(pid) === process.pid
  return microseconds === undefined || !isMeant ? undefined : microseconds / 1000
}

function positiveInteger(text: string | undefined): number | undefined {
  return text !== undefined && /^[1-9][0-9]*$/.test(text) ? Number(text) : undefined
}
