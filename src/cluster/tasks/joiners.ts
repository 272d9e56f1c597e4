import { setTimeout as sleep } from 'node:timers/promises'
import { clusterInfoName } from '../../addons/joining.ts'
import { type Api, openApi } from '../../api/client.ts'
import { ofFamilies, parseRange } from '../../base/address.ts'
import { describeError } from '../../base/errors.ts'
import { leaves } from '../../pki/leaves.ts'
import { Approver, requestsPath } from '../join/approver.ts'
import { keepOpen, openUntil, type TokenSecret, tokensPath } from '../join/join-tokens.ts'
import type { Reserved } from '../join/verdict.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** A machine's own start goes before; others can join without its Node. */
const startDelayMs = 30_000
/** Between two looks where nothing changes: a watch tells at once what does. */
const calmIntervalMs = 300_000
/** While a request waits for what its own change will not tell. */
const waitingIntervalMs = 1000
/** After a change, for more to come: a flood of requests is not looked at one by one. */
const gatherMs = 100
const retryMs = 2000

/** Opens the cluster to those who join while there are tokens, and decides on their requests for certificates. */
export const joiners: Task<TaskContext> = {
  name: 'joiners',
  purpose: 'look after machines that join',
  leaderOnly: true,
  async run(context, signal) {
    await context.whenReady('api')
    await Promise.race([context.whenReady('node'), sleep(startDelayMs, undefined, { signal, ref: false })])
    await Promise.all([keepTokens(context, signal), approve(context, signal)])
  },
}

/** One look at what a watch tells the changes of; returns what it saw, and when to look again, ms. */
type Look = (api: Api) => Promise<{ resourceVersion: string; againMs: number }>

async function keepTokens(context: TaskContext, signal: AbortSignal): Promise<void> {
  const { log, reached } = context
  const purpose = 'look for join tokens'
  await watch({ context, signal, purpose, part: 'join-tokens', path: tokensPath }, async (api) => {
    const { items, resourceVersion } = await api.list<TokenSecret>(tokensPath)
    const end = openUntil(items, Date.now())
    // What there was for joiners once is kept for those who have.
    if (end !== undefined || (await api.get(clusterInfoName)) !== undefined) reached('joiners')
    await keepOpen(api, end !== undefined, log)
    return { resourceVersion, againMs: (end ?? Number.POSITIVE_INFINITY) - Date.now() }
  })
}

async function approve(context: TaskContext, signal: AbortSignal): Promise<void> {
  const approver = new Approver()
  const purpose = 'look at requests for certificates'
  await watch({ context, signal, purpose, part: 'join-requests', path: requestsPath }, async (api) => {
    const result = await approver.pass({ api, reserved: reservedOf(context), log: context.log })
    const againMs = result.isWaiting ? waitingIntervalMs : calmIntervalMs
    return { resourceVersion: result.resourceVersion, againMs }
  })
}

/** What this server's certificates say is its own, and what its settings give to Services. */
function reservedOf({ config, addresses }: TaskContext): Reserved {
  const { names = [], addresses: own = [] } = leaves({ ...config, ...addresses() }).apiserver.profile
  return {
    names: new Set([...names.map((name) => name.toLowerCase()), config.nodeName]),
    addresses: new Set(own),
    serviceRanges: ofFamilies(config.serviceCidr).flatMap((range) => parseRange(range) ?? []),
    clusterDomain: config.clusterDomain,
  }
}

/** Looks, and looks again after each change, until the signal fires. */
async function watch(
  given: { context: TaskContext; signal: AbortSignal; purpose: string; part: string; path: string },
  look: Look,
): Promise<never> {
  const { context, signal, purpose, part, path } = given
  const { access, board, log } = context
  const trouble = new Trouble({ name: part, purpose, board, log })
  const round = async () => {
    using api = await openApi(access.admin, signal)
    const { resourceVersion, againMs } = await look(api)
    const limitMs = Math.min(Math.max(againMs, waitingIntervalMs), calmIntervalMs)
    await api.changed(path, resourceVersion, limitMs)
  }
  for (;;) {
    // kube-apiserver has a row of its own for not answering.
    const isWell = context.isReady('kube-apiserver')
      ? await trouble.attempt(round, signal)
      : await round().then(
          () => true,
          (error: unknown) => {
            log.debug({ reason: describeError(error) }, `cannot ${purpose}`)
            return false
          },
        )
    signal.throwIfAborted()
    await sleep(isWell ? gatherMs : retryMs, undefined, { signal, ref: false })
  }
}
