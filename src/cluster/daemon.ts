/** What the daemons of all roles do. */
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import { shieldFromOom } from '../base/oom-score.ts'
import type { Paths } from '../config/paths.ts'
import { refuseDuringReset, resetLockPath } from '../control/reset-lock.ts'
import type { Payload } from '../payload/payload.ts'
import { finishReplacement } from '../snapshot/replacement.ts'

/** What a service manager gives the start beyond its own limit, again and again while it goes on. */
export const startExtensionMs = 60_000

export interface DaemonOptions {
  readonly payload: Payload
  readonly log: Logger
  readonly notify: Notifier
  /** Tells whoever waits at a terminal. */
  readonly announce: (line: string) => void
  /** Aborted: everything is stopped, in reverse order. */
  readonly stop: AbortSignal
  /** Aborted: what still runs is killed at once. */
  readonly hurry: AbortSignal
}

export function prepareProcess(): void {
  // Under a strict one of the machine's, containers could not read their own root.
  process.umask(0o022)
  shieldFromOom()
}

/**
 * To be called when the control socket is served and nothing is opened yet: a reset or a restore that begins later
 * finds this daemon by its socket. Throws while one is under way; one that was interrupted is finished.
 */
export async function takeDataDir(
  paths: Paths,
  { payload, log }: Pick<DaemonOptions, 'payload' | 'log'>,
): Promise<void> {
  await refuseDuringReset(resetLockPath(paths.dataDir), 'start')
  const finished = await finishReplacement(paths, payload.sqliteAddon)
  if (finished !== undefined) log.info(`finished a ${finished} that was interrupted`)
}

/** Has the service manager wait for a start that goes on, however long it takes. */
export async function extendStart<T>(notify: Pick<Notifier, 'extendTimeout'>, start: Promise<T>): Promise<T> {
  const extension = setInterval(() => notify.extendTimeout(startExtensionMs), startExtensionMs / 2)
  return start.finally(() => clearInterval(extension))
}
