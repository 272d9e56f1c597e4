import { setTimeout as sleep } from 'node:timers/promises'
import { type Addon, Reconciler } from '../../addons/reconcile.ts'
import { openApi } from '../../api/client.ts'
import { describeError, errorCode } from '../../base/errors.ts'
import type { Capability } from '../../components/component.ts'
import { type Asking, type KeptAddon, keptAddons } from '../kept-addons.ts'
import type { Task, TaskContext } from './task.ts'

/** Between two passes when all is applied: what somebody changed or deleted is back after that. */
const calmIntervalMs = 30_000
/** While something is missing that is waited for. */
const shortestIntervalMs = 250
const longestIntervalMs = 10_000
/** While something is missing that is not. */
const patientIntervalMs = 5_000
/** An add-on that does not work so long after the start is a problem, and not on its way any more. */
const pendingLimitMs = 120_000
/** One that nobody waits for may come and go, as pods do: it is a problem when it has not worked for so long. */
const absenceLimitMs = 240_000

/** Keeps the add-ons applied, and takes away those that are not wanted any more. */
export const addons: Task<TaskContext> = {
  name: 'addons',
  purpose: 'keep the add-ons',
  leaderOnly: true,
  async run(context, signal) {
    const known = keptAddons(context)
    const wanted = known.filter(
      ({ disabledBy }) => disabledBy === undefined || !context.config.disable.includes(disabledBy),
    )
    for (const { name, isAwaited, waitsFor } of wanted) {
      if (waitsFor !== undefined && isAwaited)
        context.board.report({ name, state: 'pending', message: 'not applied yet' })
    }
    await context.whenReady('api')
    const reconciler = new Reconciler()
    const held = new Set(wanted.filter(({ needs }) => needs.length > 0))
    let wake = Promise.withResolvers<void>()
    for (const addon of held) {
      whenThere(context, addon.needs, () => {
        held.delete(addon)
        wake.resolve()
      })
    }
    const begunMs = performance.now()
    const workedMs = new Map<string, number>()
    for (let intervalMs = shortestIntervalMs; ; ) {
      wake = Promise.withResolvers()
      const heldNow = new Set(held)
      const problems = await pass({ reconciler, context, wanted, held: heldNow, known, signal })
      signal.throwIfAborted()
      if (problems === undefined) {
        // kube-apiserver has a row of its own for that; what is applied is as well as it was.
        await sleep(intervalMs, undefined, { signal, ref: false })
        continue
      }
      const shown = wanted.filter((addon) => addon.waitsFor !== undefined || !heldNow.has(addon))
      report({ context, shown, problems, begunMs, workedMs })
      const isCalm = problems.size === 0
      const isHurried = wanted.some(({ name, isAwaited }) => isAwaited && problems.has(name))
      intervalMs = isHurried
        ? Math.min(intervalMs * 1.2, longestIntervalMs)
        : isCalm
          ? calmIntervalMs
          : patientIntervalMs
      await Promise.race([sleep(intervalMs, undefined, { signal, ref: false }), wake.promise])
      if (!isHurried || [...heldNow].some(({ isAwaited, waitsFor }) => isAwaited && waitsFor !== undefined))
        intervalMs = shortestIntervalMs
    }
  },
}

/** Calls `then` when all is there; never where some of it will not be. */
function whenThere(context: TaskContext, capabilities: readonly Capability[], then: () => void): void {
  void Promise.all(capabilities.map((capability) => context.whenReady(capability))).then(then, () => {})
}

interface Pass {
  readonly reconciler: Reconciler
  readonly context: TaskContext
  readonly wanted: readonly KeptAddon[]
  readonly held: ReadonlySet<KeptAddon>
  readonly known: readonly KeptAddon[]
  readonly signal: AbortSignal
}

/** The problems by the names of add-ons. undefined: the API server does not answer. */
async function pass(given: Pass): Promise<Map<string, string> | undefined> {
  const { context, wanted, signal } = given
  try {
    // One handshake for a pass, with the identity as it is by now.
    using api = await openApi(context.access.admin, signal)
    return await passWith({ api, signal }, given)
  } catch (error) {
    const reason = describeError(error)
    // It serves, and refuses what has to come before all objects.
    if (errorCode(error) === 'API_REFUSED' && context.isReady('kube-apiserver'))
      return new Map(wanted.map(({ name }) => [name, reason]))
    context.log.debug({ reason }, 'cannot look at the add-ons')
    return undefined
  }
}

async function passWith(asking: Asking, given: Pass): Promise<Map<string, string>> {
  const { reconciler, context, wanted, held, known } = given
  const problems = new Map<string, string>()
  const made = new Map<KeptAddon, Addon>()
  for (const kept of known) {
    if (!wanted.includes(kept) && kept.isSinceInventory === true) continue
    const { name, manifests } = kept
    try {
      made.set(kept, { name, manifests: await manifests({ ...asking, isHeld: held.has(kept) }) })
    } catch (error) {
      problems.set(name, describeError(error))
    }
  }
  const addonsOf = (rows: readonly KeptAddon[]) => rows.flatMap((kept) => made.get(kept) ?? [])
  const failures = await reconciler.pass({
    api: asking.api,
    wanted: addonsOf(wanted),
    held: addonsOf([...held]),
    known: addonsOf(known),
    // What is not known now may be wanted.
    mayRemove: problems.size === 0,
    log: context.log,
  })
  for (const [name, reason] of failures) problems.set(name, reason)
  for (const kept of wanted) {
    const { name, waitsFor, problem } = kept
    if (held.has(kept)) {
      if (waitsFor !== undefined) problems.set(name, waitsFor)
    } else if (!problems.has(name)) {
      const found = await problem?.(asking)
      if (found !== undefined) problems.set(name, found)
    }
  }
  return problems
}

function report(found: {
  context: TaskContext
  shown: readonly KeptAddon[]
  problems: ReadonlyMap<string, string>
  begunMs: number
  /** When each was seen to work. */
  workedMs: Map<string, number>
}): void {
  const { context, shown, problems, begunMs, workedMs } = found
  const { board } = context
  for (const { name, isAwaited } of shown) {
    const message = problems.get(name)
    const former = board.part(name)
    if (message === undefined) {
      workedMs.set(name, performance.now())
      board.report({ name, state: 'ready' })
      if (former?.state === 'degraded') context.log.info({ addon: name }, 'works again')
      continue
    }
    const sinceMs = performance.now() - (workedMs.get(name) ?? begunMs)
    const isOnItsWay = isAwaited
      ? sinceMs <= pendingLimitMs && (former === undefined || former.state === 'pending')
      : sinceMs <= absenceLimitMs && former?.state !== 'degraded'
    board.report({ name, state: isOnItsWay ? 'pending' : 'degraded', message, isAwaited })
    if (!isOnItsWay && former?.message !== message)
      context.log.error({ addon: name, reason: message }, 'not well')
  }
}
