import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Config } from '../../config/config.ts'
import { type Cron, nextTime, parseCron } from '../../config/table/cron.ts'
import { listSnapshots, pruneSnapshots, scheduledName } from '../../snapshot/store.ts'
import type { SnapshotSource } from '../../storage/storage.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** A clock that is set is noticed after that long. */
const longestSleepMs = 60_000
/** A node that has just become Ready starts its pods first. */
const makeUpDelayMs = 60_000

interface ScheduleOptions {
  readonly config: Config
  readonly source: SnapshotSource
  readonly log: Logger
  readonly signal: AbortSignal
  /** What this daemon has taken, the oldest first: the newest there are, whatever their dates say. */
  readonly made: string[]
}

export const snapshots: Task<TaskContext> = {
  name: 'snapshots',
  purpose: 'take snapshots',
  leaderOnly: true,
  async run({ whenReady, ...context }, signal) {
    const { snapshots: source } = context.storage
    await whenReady('node')
    const { board, log } = context
    const next = 'the next try is at its next time'
    const trouble = new Trouble({ ...snapshots, purpose: 'take the scheduled snapshot', next, board, log })
    await takeSnapshots({ ...context, source, signal, made: [] }, trouble)
  },
}

/**
 * Takes snapshots at the times that the configuration names, until the signal fires. Where times were missed
 * as no daemon ran, one snapshot makes up for them.
 */
async function takeSnapshots(options: ScheduleOptions, trouble: Trouble): Promise<void> {
  const { config, log, signal } = options
  const cron = parseCron(config.snapshotScheduleCron)
  if (cron === undefined) return
  let due = await firstTime(cron, options, new Date()).catch((error: unknown) => {
    log.warn({ reason: describeError(error) }, 'cannot tell whether a scheduled snapshot was missed')
    return nextTime(cron, new Date())
  })
  for (; due !== undefined; due = nextTime(cron, new Date())) {
    await sleepUntil(due, { cron, signal })
    await trouble.attempt(() => takeSnapshot(options), signal)
  }
}

/** The next time, or soon when one has passed since the newest snapshot of the schedule. */
export async function firstTime(
  cron: Cron,
  {
    config: { nodeName, snapshotDir },
    source,
  }: { config: Pick<Config, 'nodeName' | 'snapshotDir'>; source: Pick<SnapshotSource, 'createdAt'> },
  now: Date,
): Promise<Date | undefined> {
  const { snapshots } = await listSnapshots(snapshotDir, now)
  const newest = snapshots.find(({ name, isAhead }) => !isAhead && name === scheduledName(nodeName))
  // Before the first snapshot the times count from the making of the storage.
  const since = newest === undefined ? await source.createdAt() : newest.header.createdAt
  const next = nextTime(cron, new Date(since))
  return next !== undefined && next <= now ? new Date(now.getTime() + makeUpDelayMs) : nextTime(cron, now)
}

/** A clock that was put back since then would have one wait for a time that is far away now. */
export function dueBy(cron: Cron, due: Date, now: Date): Date {
  const next = nextTime(cron, now)
  return next !== undefined && next < due ? next : due
}

async function sleepUntil(first: Date, { cron, signal }: { cron: Cron; signal: AbortSignal }): Promise<void> {
  for (let due = first; ; ) {
    const now = new Date()
    if (due <= now) return
    due = dueBy(cron, due, now)
    const leftMs = due.getTime() - now.getTime()
    await sleep(Math.min(leftMs, longestSleepMs), undefined, { signal, ref: false })
  }
}

/** Takes one now, and removes what is too much of the schedule's own. */
export async function takeSnapshot({ config, source, log, signal, made }: ScheduleOptions): Promise<void> {
  const { snapshotDir, snapshotRetention } = config
  const name = scheduledName(config.nodeName)
  const begun = performance.now()
  made.push(await source.save(name, signal))
  const { removed, warning } = await pruneSnapshots(snapshotDir, { retention: snapshotRetention, name, made })
  made.splice(0, made.length - snapshotRetention)
  if (warning !== undefined) log.warn({ dir: snapshotDir }, `snapshots are ${warning}`)
  const tookMs = Math.round(performance.now() - begun)
  log.info({ dir: snapshotDir, tookMs, removed: removed.length }, 'snapshot taken')
}
