import { AppError, describeError, isStatus } from '../base/errors.ts'
import type { NodeTaskContext } from './tasks/task.ts'
import { watchAccess, type WatchGiven } from './watch-access.ts'

/** How policies, and what they are about, are watched. */
export function policyAccess(
  context: Pick<NodeTaskContext, 'access' | 'board' | 'log'>,
  given: Omit<WatchGiven, 'access' | 'withRemedy'>,
) {
  return watchAccess(context, { ...given, access: context.access.policies, withRemedy })
}

function withRemedy(error: unknown): unknown {
  if (!isStatus(error, 403)) return error
  return new AppError(describeError(error), {
    code: error.code,
    remedy:
      'where the servers leave network-policy out, agents have to be told so, too (--disable=network-policy)',
  })
}
