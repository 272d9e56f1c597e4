import { setTimeout as sleep } from 'node:timers/promises'
import { ClockWatch } from '../base/clock.ts'
import type { MachineTaskContext } from './tasks/task.ts'
import { Trouble } from './trouble.ts'

/** Certificates are renewed months before their end: a day more or less is nothing. */
const renewalIntervalMs = 24 * 3_600_000
/** A disk that was full may be well by then. */
const retryIntervalMs = 10 * 60_000
/** Unless the clock is set, or the machine was asleep: then they may be over at once. */
const lookIntervalMs = 60_000
const clockToleranceMs = 60_000

interface RenewalOptions
  extends Pick<MachineTaskContext, 'credentials' | 'issueCredentials' | 'log' | 'board'> {
  readonly name: string
  readonly purpose: string
  /** Called at each look until it says true. */
  readonly beside?: () => Promise<boolean>
}

/** Looks once a day which certificates are to be renewed, after what the start has found. */
export async function renewDaily(options: RenewalOptions, signal: AbortSignal): Promise<void> {
  const { credentials, issueCredentials, beside = async () => true } = options
  const trouble = new Trouble(options)
  const clock = new ClockWatch()
  const late = await credentials
  let renew = async () => {
    if (late !== undefined) throw late
  }
  for (;;) {
    const intervalMs = (await trouble.attempt(renew, signal)) ? renewalIntervalMs : retryIntervalMs
    await dueAgain({ clock, signal, intervalMs, beside })
    renew = issueCredentials
  }
}

/** Resolves after the interval, or soon after the clock was set; `beside` is called until it says true. */
async function dueAgain({
  clock,
  signal,
  intervalMs,
  beside,
}: {
  clock: ClockWatch
  signal: AbortSignal
  intervalMs: number
  beside: () => Promise<boolean>
}): Promise<void> {
  const end = performance.now() + intervalMs
  for (let isDone = false; performance.now() < end; ) {
    isDone ||= await beside()
    await sleep(lookIntervalMs, undefined, { signal, ref: false })
    if (Math.abs(clock.setByMs()) > clockToleranceMs) return
  }
}
