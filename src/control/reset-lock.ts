import { createHash } from 'node:crypto'
import { AppError, errorCode } from '../base/errors.ts'
import { withoutLinks } from '../base/files.ts'
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
        throw notNow('tell the status', process.pid)
      },
      stop: () => {
        throw notNow('stop', process.pid)
      },
    },
  })
}

/** `action` is what cannot be done meanwhile, as a verb. A reset that is stopped, or too slow to answer, is under way, too. */
export async function refuseDuringReset(path: string, action: string): Promise<void> {
  const refusal = await connectControl(path)
    .identity()
    .then(
      ({ pid }) => notNow(action, pid),
      (error: unknown) => (errorCode(error) === 'DAEMON_NOT_RUNNING' ? undefined : notNow(action)),
    )
  if (refusal !== undefined) throw refusal
}

function notNow(action: string, pid?: number): AppError {
  const process_ = pid === undefined ? '' : ` in process ${pid}`
  return new AppError(`cannot ${action}: \`k8s reset\` is under way${process_}`, {
    code: 'RESET_RUNNING',
    ...(pid !== undefined && { pid }),
    remedy: 'wait for its end',
  })
}
