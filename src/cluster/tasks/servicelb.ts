import { setTimeout as sleep } from 'node:timers/promises'
import { isHeld, type ServiceFacts, serviceFacts } from '../../network/load-balancer/facts.ts'
import { keepObjects } from '../../api/watch.ts'
import type { LoadBalancer } from '../load-balancer.ts'
import { Trouble } from '../trouble.ts'
import { Wakeup } from '../wakeup.ts'
import { watchAccess } from '../watch-access.ts'
import type { Task, TaskContext } from './task.ts'

const retryMs = 2_000
/** For more changes to come. */
const gatherMs = 100
/** The API server sends no other ones. */
const servicesPath = '/api/v1/services?fieldSelector=spec.type%3DLoadBalancer'

/** Gives Services of type LoadBalancer the addresses of nodes (load-balancer.ts). As long as there is none this is one watch. */
export const servicelb: Task<TaskContext> = {
  name: 'servicelb',
  purpose: 'give Services the addresses of nodes',
  leaderOnly: true,
  async run(context, signal) {
    const { access, board, config, log } = context
    const { name } = servicelb
    await context.whenReady('api')
    const isLeftOut = config.disable.includes('servicelb')
    const trouble = new Trouble({ ...servicelb, board, log })
    const wakeup = new Wakeup()
    const over = new AbortController()
    let services: ReadonlyMap<string, ServiceFacts> | undefined
    let balancer: LoadBalancer | undefined
    const watching = keepObjects<ServiceFacts>({
      ...watchAccess(context, {
        ...{ name: 'servicelb-services', what: 'the Services of type LoadBalancer' },
        ...{ access: access.nodes, wakeup, signal: AbortSignal.any([signal, over.signal]) },
      }),
      path: servicesPath,
      factsOf: serviceFacts,
      onChange(all) {
        services = all
        wakeup.wake()
      },
    })
    /** Returns what the status says. */
    const pass = async (known: ReadonlyMap<string, ServiceFacts>) => {
      if (known.size > 0) {
        balancer ??= new (await load()).LoadBalancer(context, { wakeup, signal })
        return await balancer.pass(known)
      }
      await balancer?.stop()
      balancer = undefined
      return 'there are no Services of type LoadBalancer'
    }
    try {
      for (let isWell = true; ; ) {
        await wakeup.wait(isWell ? undefined : retryMs, signal)
        const known = services
        if (known === undefined) continue
        if (isLeftOut && ![...known.values()].some(isHeld)) return
        let message: string | undefined
        isWell = await trouble.attempt(async () => {
          if (isLeftOut) return await (await load()).takeBackAddresses(context, known, signal)
          message = await pass(known)
        }, signal)
        if (isWell && message !== undefined) board.report({ name, state: 'ready', message })
        await sleep(gatherMs, undefined, { signal, ref: false })
      }
    } finally {
      over.abort()
      await Promise.all([watching, balancer?.stop()])
      // Another server says it from now on.
      board.forget(name)
    }
  },
}

function load() {
  return import('../load-balancer.ts')
}
