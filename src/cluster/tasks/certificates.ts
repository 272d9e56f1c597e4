import { setTimeout as sleep } from 'node:timers/promises'
import { ClockWatch } from '../../base/clock.ts'
import { writeUserKubeconfig } from '../credentials.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** Certificates are renewed months before their end: a day more or less is nothing. */
const renewalIntervalMs = 24 * 3_600_000
/** A disk that was full may be well by then. */
const retryIntervalMs = 10 * 60_000
/** Unless the clock is set, or the machine was asleep: then they may be over at once. The kubeconfig is tried again, too. */
const lookIntervalMs = 60_000
const clockToleranceMs = 60_000

/** Looks once a day which certificates are to be renewed; the start of the daemon has just done so. */
export const certificates: Task<TaskContext> = {
  name: 'certificates',
  purpose: 'renew certificates',
  leaderOnly: false,
  async run({ config, paths, credentials, issueCredentials, log, board }, signal) {
    const trouble = new Trouble({ ...certificates, board, log })
    const clock = new ClockWatch()
    const write = () => writeUserKubeconfig({ config, paths, log, board })
    const late = await credentials
    let renew = async () => {
      if (late !== undefined) throw late
    }
    // What the start has found, and then what is found anew.
    for (;;) {
      const intervalMs = (await trouble.attempt(renew, signal)) ? renewalIntervalMs : retryIntervalMs
      await dueAgain({ clock, signal, intervalMs, write })
      renew = issueCredentials
    }
  },
}

/** Resolves after the interval, or soon after the clock was set; `write` is called until it says true. */
async function dueAgain({
  clock,
  signal,
  intervalMs,
  write,
}: {
  clock: ClockWatch
  signal: AbortSignal
  intervalMs: number
  write: () => Promise<boolean>
}): Promise<void> {
  const end = performance.now() + intervalMs
  for (let isWritten = false; performance.now() < end; ) {
    isWritten ||= await write()
    await sleep(lookIntervalMs, undefined, { signal, ref: false })
    if (Math.abs(clock.setByMs()) > clockToleranceMs) return
  }
}
