import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { watchObjects } from '../../api/watch.ts'
import { type PolicyFacts, policyFacts } from '../../network/policy/facts.ts'
import { policyAccess } from '../policy-access.ts'
import type { PolicyKeeper } from '../policy-keeper.ts'
import { Trouble } from '../trouble.ts'
import { Wakeup } from '../wakeup.ts'
import type { Task } from './task.ts'

/** After the last policy went: who deletes one and makes another finds all as it was. */
const lingerMs = 60_000
const retryMs = 60_000
/** For more changes to come, which are then one transaction. */
const gatherMs = 20

/**
 * Enforces NetworkPolicy on this node (policy-keeper.ts). As long as the cluster has no policy this is one watch, and nothing
 * is in the kernel.
 */
export const networkPolicy: Task = {
  name: 'network-policy',
  purpose: 'enforce network policies',
  leaderOnly: false,
  async run(context, signal) {
    const { board, config, log, paths } = context
    const { name } = networkPolicy
    const trouble = new Trouble({ ...networkPolicy, board, log })
    const isInKernel = () => existsSync(paths.policyMark)
    const remove = () => trouble.attempt(async () => (await load()).removeRules(context, signal), signal)
    if (config.disable.includes('network-policy')) {
      while (isInKernel() && !(await remove())) await sleep(retryMs, undefined, { signal, ref: false })
      return
    }
    await context.whenReady('api')
    const wakeup = new Wakeup()
    const over = new AbortController()
    const access = policyAccess(context, {
      ...{ name: 'network-policies', what: 'the network policies' },
      ...{ signal: AbortSignal.any([signal, over.signal]), wakeup },
    })
    let policies: Map<string, PolicyFacts> | undefined
    let keeper: PolicyKeeper | undefined
    const watching = watchObjects<PolicyFacts>({
      ...access,
      path: '/apis/networking.k8s.io/v1/networkpolicies',
      factsOf: policyFacts,
      onAll(all) {
        policies = all
        keeper?.engine.setAll({ policies })
        wakeup.wake()
      },
      onOne(key, facts) {
        if (facts === undefined) policies?.delete(key)
        else policies?.set(key, facts)
        keeper?.engine.setPolicy(key, facts)
        wakeup.wake()
      },
    })
    try {
      let emptySinceMs: number | undefined
      for (;;) {
        await wakeup.wait(keeper?.lookIntervalMs, signal)
        const isEmpty = policies?.size === 0
        emptySinceMs = isEmpty ? (emptySinceMs ?? performance.now()) : undefined
        const hasLingered = keeper === undefined || performance.now() - (emptySinceMs ?? Infinity) >= lingerMs
        if (isEmpty && hasLingered) {
          board.metrics.delete(name)
          await keeper?.stop()
          keeper = undefined
          if (!isInKernel() || (await remove()))
            board.report({ name, state: 'ready', message: 'there are no policies' })
          continue
        }
        // While it is not known which there are, those of before are enforced.
        if (policies === undefined && !isInKernel()) continue
        if (keeper === undefined) {
          keeper = new (await load()).PolicyKeeper(context, { wakeup, signal })
          if (policies !== undefined) keeper.engine.setAll({ policies })
        }
        const own = keeper
        board.metrics.set(name, (metrics) => own.tell(metrics))
        const isWell = await trouble.attempt(
          () => own.pass({ isKnown: policies !== undefined, isAway: access.isAway() }),
          signal,
        )
        if (isWell) board.report({ name, state: 'ready', message: own.summary() })
        await sleep(gatherMs, undefined, { signal, ref: false })
      }
    } finally {
      over.abort()
      board.metrics.delete(name)
      await Promise.all([watching, keeper?.stop()])
    }
  },
}

/** A cluster without policies has no need of it. */
function load() {
  return import('../policy-keeper.ts')
}
