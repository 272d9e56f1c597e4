import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Config } from '../config/config.ts'
import { nextTime, parseCron } from '../config/cron.ts'
import type { Payload } from '../payload/payload.ts'
import { pruneSnapshots, scheduledName } from '../snapshot/store.ts'
import { runCommand } from '../supervisor/process.ts'
import { hostPath } from './host-path.ts'

/** A clock that is set is noticed after that long. */
const longestSleepMs = 60_000
/** For a database of some 100 GB. */
const saveTimeoutMs = 3_600_000

interface ScheduleOptions {
  readonly config: Config
  readonly payload: Payload
  readonly log: Logger
  readonly signal: AbortSignal
  /** This program, for the process that takes a snapshot. */
  readonly main?: string
}

/** Takes snapshots at the times that the configuration names, until the signal fires. */
export async function takeSnapshots(options: ScheduleOptions): Promise<void> {
  const { config, log, signal } = options
  const cron = parseCron(config.snapshotScheduleCron)
  if (cron === undefined) return
  for (;;) {
    const due = nextTime(cron, new Date())
    if (due === undefined) return
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

async function sleepUntil(due: Date, signal: AbortSignal): Promise<void> {
  for (;;) {
    const leftMs = due.getTime() - Date.now()
    if (leftMs <= 0) return
    await sleep(Math.min(leftMs, longestSleepMs), undefined, { signal, ref: false })
  }
}

/** In a process of its own: what a snapshot takes of memory and processor is gone after it. */
export async function takeSnapshot(options: ScheduleOptions): Promise<void> {
  const { config, payload, log, signal, main = process.argv[1] as string } = options
  const { dataDir, snapshotDir, snapshotSecretFile, snapshotRetention } = config
  const name = scheduledName(config.nodeName)
  const begun = performance.now()
  await runCommand({
    command: process.execPath,
    args: [
      ...[main, 'snapshot', 'save', name],
      ...[`--data-dir=${dataDir}`, `--snapshot-dir=${snapshotDir}`],
      ...(snapshotSecretFile === undefined ? [] : [`--snapshot-secret-file=${snapshotSecretFile}`]),
    ],
    // As the launcher sets it: Node needs a library that minimal systems lack.
    env: { PATH: hostPath, K8S_PAYLOAD_DIR: payload.dir, LD_LIBRARY_PATH: join(payload.dir, 'lib') },
    timeoutMs: saveTimeoutMs,
    signal,
  })
  const removed = await pruneSnapshots(snapshotDir, { retention: snapshotRetention, name })
  const tookMs = Math.round(performance.now() - begun)
  log.info({ dir: snapshotDir, tookMs, removed: removed.length }, 'snapshot taken')
}
