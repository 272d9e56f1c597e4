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
}

/**
 * Writes to the datagram socket that the launcher connected, as Node has no Unix datagrams. Without
 * one it tells nobody. A service manager that went away is no reason to fail.
 */
export function createNotifier(fdText: string | undefined): Notifier {
  const fd = fdText !== undefined && /^[1-9][0-9]*$/.test(fdText) ? Number(fdText) : undefined
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
  }
}
