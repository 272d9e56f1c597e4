import type { WatchAccess } from '../network/object-watch.ts'
import type { NodeTaskContext } from './tasks/task.ts'
import { Trouble } from './trouble.ts'
import type { Wakeup } from './wakeup.ts'

type AccessContext = Pick<NodeTaskContext, 'access' | 'board' | 'log'>

interface PolicyAccess extends WatchAccess {
  readonly what: string
  /** Whether the API server has not answered for a while. */
  readonly isAway: () => boolean
}

/** How policies, and what they are about, are watched; what is in the way is a part of the status. */
export function policyAccess(
  { access, board, log }: AccessContext,
  given: { name: string; what: string; signal: AbortSignal; wakeup: Wakeup },
): PolicyAccess {
  const { name, what, signal, wakeup } = given
  const trouble = new Trouble({ name, purpose: `watch ${what}`, board, log })
  let isAway = false
  return {
    ...{ what, signal, server: access.server, identity: access.policyIdentity, isAway: () => isAway },
    onTrouble(reason) {
      isAway = reason !== undefined
      wakeup.wake()
      const tell = () => {
        if (reason !== undefined) throw new Error(`${reason}${reason.includes(' 403 ') ? forbidden : ''}`)
      }
      trouble.attempt(tell, signal).catch(() => {})
    },
  }
}

const forbidden =
  ': where the servers leave network-policy out, agents have to be told so, too (--disable=network-policy)'
