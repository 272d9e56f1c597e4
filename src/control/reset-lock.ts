import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { connectControl } from './client.ts'
import { serveControl } from './server.ts'

/*
 * While `k8s reset` removes a data directory, nothing may start in it: a unit that is started again and again would
 * come up in what is left of it. The lock is a socket outside of all that is removed, which the kernel closes with its
 * process, so none can be stale:
 *
 *    reset:   listen at the lock  ->  is a daemon at the control socket?
 *    daemon:  serve the control socket  ->  is somebody at the lock?
 *
 * Whichever comes second sees the other. The launcher asks, too, before it unpacks (components/launcher/unpack.c).
 */

/** In /run, where nobody but root can put anything. `directory` is another one in tests. */
export function resetLockPath(dataDir: string, directory = '/run'): string {
  const digest = createHash('sha256').update(withoutLinks(dataDir)).digest('hex')
  return `${directory}/k8s-reset-${digest.slice(0, 16)}.sock`
}

/** Throws RESET_RUNNING when another reset has it. */
export async function holdResetLock(path: string, log: Logger): Promise<AsyncDisposable> {
  await refuseDuringReset(path, 'reset')
  return serveControl({
    path,
    log,
    handlers: {
      status: () => {
        throw notNow('tell the status')
      },
      stop: () => {
        throw notNow('stop')
      },
    },
  })
}

/** `action` is what cannot be done meanwhile, as a verb. */
export async function refuseDuringReset(path: string, action: string): Promise<void> {
  const pid = await connectControl(path)
    .identity()
    .then(
      (identity) => identity.pid,
      () => undefined,
    )
  if (pid !== undefined) throw notNow(action, pid)
}

function notNow(action: string, pid = process.pid): AppError {
  return new AppError(`cannot ${action}: \`k8s reset\` is under way in process ${pid}`, {
    code: 'RESET_RUNNING',
    pid,
    remedy: 'wait for its end',
  })
}

function withoutLinks(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
