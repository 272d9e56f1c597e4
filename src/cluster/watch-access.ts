import type { TlsIdentity } from '../base/http.ts'
import type { WatchAccess } from '../network/object-watch.ts'
import type { NodeTaskContext } from './tasks/task.ts'
import { Trouble } from './trouble.ts'
import type { Wakeup } from './wakeup.ts'

export interface WatchGiven {
  /** Of the part in `k8s status`. */
  readonly name: string
  readonly what: string
  readonly identity: () => Promise<TlsIdentity>
  readonly signal: AbortSignal
  readonly wakeup: Wakeup
  /** What is added to a reason, where something helps. */
  readonly remedyOf?: (reason: string) => string
}

interface TaskWatchAccess extends WatchAccess {
  readonly what: string
  /** Whether the API server has not answered for a while. */
  readonly isAway: () => boolean
}

/** How a task watches objects; what is in the way is a part of the status. */
export function watchAccess(
  { access, board, log }: Pick<NodeTaskContext, 'access' | 'board' | 'log'>,
  { name, what, identity, signal, wakeup, remedyOf = () => '' }: WatchGiven,
): TaskWatchAccess {
  const trouble = new Trouble({ name, purpose: `watch ${what}`, board, log })
  let isAway = false
  // Who does not watch any more has no trouble with it.
  signal.addEventListener('abort', () => board.forget(name), { once: true })
  return {
    ...{ what, signal, server: access.server, identity, isAway: () => isAway },
    onTrouble(reason) {
      isAway = reason !== undefined
      wakeup.wake()
      const tell = () => {
        if (reason !== undefined) throw new Error(`${reason}${remedyOf(reason)}`)
      }
      trouble.attempt(tell, signal).catch(() => {})
    },
  }
}
