import type { NodeTaskContext } from './tasks/task.ts'
import { watchAccess, type WatchGiven } from './watch-access.ts'

/** How policies, and what they are about, are watched. */
export function policyAccess(
  context: Pick<NodeTaskContext, 'access' | 'board' | 'log'>,
  given: Omit<WatchGiven, 'identity' | 'remedyOf'>,
) {
  return watchAccess(context, {
    ...given,
    identity: context.access.policyIdentity,
    remedyOf: (reason) => (reason.includes(' 403 ') ? forbidden : ''),
  })
}

const forbidden =
  ': where the servers leave network-policy out, agents have to be told so, too (--disable=network-policy)'
