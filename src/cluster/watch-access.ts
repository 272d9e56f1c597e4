import type { ApiAccess } from '../api/client.ts'
import type { WatchAccess } from '../api/watch.ts'
import type { NodeTaskContext } from './tasks/task.ts'
import { Trouble } from './trouble.ts'
import type { Wakeup } from './wakeup.ts'

export interface WatchGiven {
  /** Of the part in `k8s status`. */
  readonly name: string
  readonly what: string
  readonly access: ApiAccess
  readonly signal: AbortSignal
  readonly wakeup: Wakeup
  /** What is told instead, where something helps. */
  readonly withRemedy?: (error: unknown) => unknown
}

interface TaskWatchAccess extends WatchAccess {
  /** Whether the API server has not answered for a while. */
  readonly isAway: () => boolean
}

/** How a task watches objects; what is in the way is a part of the status. */
export function watchAccess(
  { board, log }: Pick<NodeTaskContext, 'board' | 'log'>,
  { name, what, access, signal, wakeup, withRemedy = (error) => error }: WatchGiven,
): TaskWatchAccess {
  const trouble = new Trouble({ name, purpose: `watch ${what}`, board, log })
  let isAway = false
  // Who does not watch any more has no trouble with it.
  signal.addEventListener('abort', () => board.forget(name), { once: true })
  return {
    ...{ access, signal, isAway: () => isAway },
    onTrouble(error) {
      isAway = error !== undefined
      wakeup.wake()
      const tell = () => {
        if (error !== undefined) throw withRemedy(error)
      }
      trouble.attempt(tell, signal).catch(() => {})
    },
  }
}
