import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Config } from '../../config/config.ts'
import { type Cron, nextTime, parseCron } from '../../config/table/cron.ts'
import { paths } from '../../config/paths.ts'
import { listSnapshots, pruneSnapshots, scheduledName } from '../../snapshot/store.ts'
import type { Storage } from '../../storage/storage.ts'
import type { Task } from './task.ts'

/** A clock that is set is noticed after that long. */
const longestSleepMs = 60_000
/** A node that has just become Ready starts its pods first. */
const makeUpDelayMs = 60_000

interface ScheduleOptions {
  readonly config: Config
  readonly storage: Pick<Storage, 'saveSnapshot'>
  readonly log: Logger
  readonly signal: AbortSignal
}

export const snapshots: Task = {
  name: 'snapshots',
  purpose: 'take snapshots',
  leaderOnly: true,
  async run({ whenReady, ...context }, signal) {
    await whenReady('node')
    await takeSnapshots({ ...context, signal })
  },
}

/**
 * Takes snapshots at the times that the configuration names, until the signal fires. Where times were missed
 * as no daemon ran, one snapshot makes up for them.
 */
async function takeSnapshots(options: ScheduleOptions): Promise<void> {
  const { config, log, signal } = options
  const cron = parseCron(config.snapshotScheduleCron)
  if (cron === undefined) return
  let due = await firstTime(cron, config, new Date()).catch((error: unknown) => {
    log.warn({ reason: describeError(error) }, 'cannot tell whether a scheduled snapshot was missed')
    return nextTime(cron, new Date())
  })
  for (; due !== undefined; due = nextTime(cron, new Date())) {
    await sleepUntil(due, signal)
    await takeSnapshot(options).catch((error: unknown) => {
      signal.throwIfAborted()
      log.error(
        { reason: describeError(error) },
        'cannot take the scheduled snapshot; the next try is at its next time',
      )
    })
  }
}

/** The next time, or soon when one has passed since the newest snapshot of the schedule. */
export async function firstTime(
  cron: Cron,
  { nodeName, dataDir, snapshotDir }: Pick<Config, 'nodeName' | 'dataDir' | 'snapshotDir'>,
  now: Date,
): Promise<Date | undefined> {
  const { snapshots } = await listSnapshots(snapshotDir)
  const newest = snapshots.find(({ name }) => name === scheduledName(nodeName))
  // Before the first snapshot the times count from the making of the database; opening it would drop its locks.
  const since =
    newest === undefined ? (await stat(paths({ dataDir }).database)).birthtime : newest.header.createdAt
  const next = nextTime(cron, new Date(since))
  return next !== undefined && next <= now ? new Date(now.getTime() + makeUpDelayMs) : nextTime(cron, now)
}

async function sleepUntil(due: Date, signal: AbortSignal): Promise<void> {
  for (;;) {
    const leftMs = due.getTime() - Date.now()
    if (leftMs <= 0) return
    await sleep(Math.min(leftMs, longestSleepMs), undefined, { signal, ref: false })
  }
}

/** Takes one now, and removes what is too much of the schedule's own. */
export async function takeSnapshot({ config, storage, log, signal }: ScheduleOptions): Promise<void> {
  const { snapshotDir, snapshotRetention } = config
  const name = scheduledName(config.nodeName)
  const begun = performance.now()
  await storage.saveSnapshot(name, signal)
  const removed = await pruneSnapshots(snapshotDir, { retention: snapshotRetention, name })
  const tookMs = Math.round(performance.now() - begun)
  log.info({ dir: snapshotDir, tookMs, removed: removed.length }, 'snapshot taken')
}
