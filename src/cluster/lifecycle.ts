/*
 * Each component goes its way by itself:
 *
 *    init ──▶ what it needs is there ──▶ start ──▶ ready ──▶ what needs it begins
 *     │                                    │         │
 *     └── failed ──────────────────────────┴─────────┴── not ready in time
 *              │
 *              ├─ fatal      the start ends with the reason
 *              └─ degraded   it is told; what needs it begins all the same; it is tried again until the stop
 */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { readProcessorTimeMs } from '../base/proc.ts'
import type { Capability, Component } from '../components/component.ts'

/** Between SIGKILL and the kernel's last word a process may still be there for a moment. */
const defaultMarginMs = 5_000

/** Between two tries of a component that could not be started. */
const defaultRetryMs = 5_000

/** For the files of a component that may take any time to be ready. */
const longestPreparationMs = 120_000

/**
 * A component that is not ready in time but has used this much of a processor meanwhile gets the time once more, and at
 * most so many times: machines may be slow.
 */
const progressShare = 0.05
const timeExtensionsLimit = 10

interface StartOptions {
  /** In the order of their start; what provides a capability stands before what needs it. */
  readonly components: readonly Component[]
  /** What tasks provide that components need. */
  readonly ofTasks?: ReadonlyMap<Capability, Promise<void>>
  readonly signal: AbortSignal
  readonly onReady: (component: Component) => void
  /** Called with each reason why it is not ready yet, after which it is tried again. */
  readonly onDegraded: (component: Component, reason: string) => void
  /** What differs from the time between two tries. */
  readonly retryMs?: number
  /** What a process has used of the processor so far; default: what the kernel says. */
  readonly processorTimeMs?: (pid: number) => number | undefined
}

/** A start that is under way. */
export interface Start {
  /** Resolves when all are ready without which nothing works; rejects with the first reason why one of them is not. */
  readonly serving: Promise<void>
  /** Settles when each one is ready, or was so when the signal fired; never rejects. */
  readonly complete: Promise<void>
}

/** Starts each component as soon as what it needs is there. Whoever called stops whatever runs. */
export function startComponents(options: StartOptions): Start {
  const { components, signal, onReady, onDegraded } = options
  const { retryMs = defaultRetryMs, processorTimeMs = readProcessorTimeMs } = options
  const giveUp = new AbortController()
  const limited = AbortSignal.any([signal, giveUp.signal])
  const there = new Map(options.ofTasks)
  for (const promise of there.values()) promise.catch(() => {})
  const fatal: Promise<void>[] = []
  const all: Promise<void>[] = []
  for (const component of components) {
    const needed = component.needs.map((capability) => {
      const promise = there.get(capability)
      if (promise === undefined)
        throw new Error(`bug: ${component.name} needs ${capability}, which nothing before it provides`)
      return promise
    })
    const released = Promise.withResolvers<void>()
    const whole = bringUp(component, {
      ...{ needed, retryMs, processorTimeMs, signal: limited },
      onDegraded(reason) {
        onDegraded(component, reason)
        released.resolve()
      },
    }).then(() => {
      onReady(component)
      released.resolve()
    })
    whole.catch((cause: unknown) => {
      if (component.policy === 'fatal') giveUp.abort(cause)
      released.reject(cause)
    })
    released.promise.catch(() => {})
    for (const capability of component.provides) there.set(capability, released.promise)
    if (component.policy === 'fatal') fatal.push(whole)
    all.push(whole)
  }
  // Nobody who wants the end waits for a start that hangs, as on a disk that does not answer.
  const ended = limited.aborted ? Promise.resolve() : once(limited, 'abort')
  const serving = Promise.race([Promise.allSettled(fatal), ended]).then(() => {
    // The abort reason is the first failure; those that followed from it say nothing new.
    giveUp.signal.throwIfAborted()
    signal.throwIfAborted()
  })
  return { serving, complete: Promise.allSettled(all).then(() => {}) }
}

interface BringUpOptions {
  readonly needed: readonly Promise<void>[]
  readonly signal: AbortSignal
  readonly retryMs: number
  readonly processorTimeMs: (pid: number) => number | undefined
  readonly onDegraded: (reason: string) => void
}

async function bringUp(component: Component, options: BringUpOptions): Promise<void> {
  const { needed, signal, retryMs, onDegraded } = options
  const prepare = preparation(component)
  const steps = [
    async () => {
      await prepare(signal)
      await Promise.all(needed)
      signal.throwIfAborted()
      await component.start(signal)
    },
    () => readyInTime(component, options),
  ]
  for (const step of steps) {
    for (;;) {
      try {
        await step()
        break
      } catch (error) {
        if (component.policy === 'fatal' || signal.aborted) throw error
        onDegraded(describeError(error))
      }
      await sleep(retryMs, undefined, { signal, ref: false })
    }
  }
}

/**
 * Rejects when it takes too long, as on a disk that does not answer. The next call waits on for the same one: each that
 * hangs keeps a thread of the daemon's.
 */
function preparation(component: Component): (signal: AbortSignal) => Promise<void> {
  const { name } = component
  const limitMs = Math.min(component.readyTimeoutMs, longestPreparationMs)
  let underWay: Promise<void> | undefined
  return async (signal) => {
    underWay ??= component.init().finally(() => (underWay = undefined))
    const over = new AbortController()
    const late = sleep(limitMs, 'late', { signal: AbortSignal.any([signal, over.signal]), ref: false })
    try {
      if ((await Promise.race([underWay, late])) !== 'late') return
    } finally {
      over.abort()
      late.catch(() => {})
    }
    throw new AppError(`cannot prepare ${name}: its files were not written within ${limitMs / 1000} s`, {
      code: 'COMPONENT_NOT_READY',
      remedy: 'it hangs in a system call, as on a disk that does not answer: look at its disks, or reboot',
    })
  }
}

/** Gives a component the time again in which it got on with its work. */
async function readyInTime(
  component: Component,
  { signal, processorTimeMs }: Pick<BringUpOptions, 'signal' | 'processorTimeMs'>,
): Promise<void> {
  const { readyTimeoutMs } = component
  if (!Number.isFinite(readyTimeoutMs)) return component.ready(signal)
  const limit = new AbortController()
  const usedMs = () => processorTimeMs(component.status().pid ?? 0) ?? 0
  let extensions = 0
  let beforeMs = usedMs()
  const timer = setInterval(() => {
    const nowMs = usedMs()
    // After a restart it counts from nothing again.
    const progressMs = nowMs < beforeMs ? nowMs : nowMs - beforeMs
    beforeMs = nowMs
    if (progressMs >= progressShare * readyTimeoutMs && ++extensions <= timeExtensionsLimit) return
    limit.abort(
      new AppError(
        `cannot wait longer for ${component.name}: it was not ready within ${readyTimeoutMs / 1000} s`,
        {
          code: 'COMPONENT_NOT_READY',
        },
      ),
    )
  }, readyTimeoutMs)
  try {
    await component.ready(AbortSignal.any([signal, limit.signal]))
  } finally {
    clearInterval(timer)
  }
}

/**
 * Ends a component that runs and starts it anew, with the flags of now; what cannot be started is tried again until the
 * signal fires. Rejects when it is not ready in time. One that does not run yet is left to its start, which takes the
 * flags of then.
 */
export async function restartComponent(
  component: Component,
  { signal, retryMs = defaultRetryMs, onFailure }: RestartOptions,
): Promise<void> {
  if (isDown(component)) return
  await component.stop(AbortSignal.timeout(component.stopTimeoutMs))
  // Somebody else may have restarted it meanwhile.
  while (isDown(component)) {
    signal.throwIfAborted()
    try {
      await component.start(signal)
    } catch (error) {
      signal.throwIfAborted()
      onFailure(describeError(error))
      await sleep(retryMs, undefined, { signal, ref: false })
    }
  }
  await readyInTime(component, { signal, processorTimeMs: readProcessorTimeMs })
}

interface RestartOptions {
  readonly signal: AbortSignal
  /** Called with each reason why it could not be started, after which it is tried again. */
  readonly onFailure: (reason: string) => void
  /** What differs from the time between two tries. */
  readonly retryMs?: number
}

function isDown(component: Component): boolean {
  const { state } = component.status()
  return state === 'idle' || state === 'stopped'
}

interface StopOptions {
  readonly components: readonly Component[]
  /** Aborted: what still runs is killed at once. */
  readonly hurry: AbortSignal
  /** Called with the name when a component was stopped, and how long it took, ms. */
  readonly onStop: (component: Component, tookMs: number) => void
  /** Runs when everything up to and including what provides the capability has stopped. */
  readonly afterLosing?: Partial<Record<Capability, () => Promise<void>>>
  /** What differs from the time between the kill and the giving up. */
  readonly marginMs?: number
}

/**
 * Stops strictly one after the other, in the reverse of the start. An error of one does not spare the rest, and one that
 * cannot be stopped is left behind (STOP_ABANDONED): after its limit and two margins, in a hurry after one.
 */
export async function stopComponents({
  components,
  hurry,
  onStop,
  afterLosing = {},
  marginMs = defaultMarginMs,
}: StopOptions): Promise<void> {
  const errors: unknown[] = []
  for (const component of components.toReversed()) {
    const begun = performance.now()
    await stopOne(component, { hurry, marginMs }).catch((error: unknown) => errors.push(error))
    onStop(component, performance.now() - begun)
    for (const capability of component.provides) {
      await afterLosing[capability]?.().catch((error: unknown) => errors.push(error))
    }
  }
  if (errors.length > 0)
    throw errors.length === 1 ? errors[0] : new AggregateError(errors, errors.map(describeError).join('; '))
}

async function stopOne(
  component: Component,
  { hurry, marginMs }: { hurry: AbortSignal; marginMs: number },
): Promise<void> {
  const { name, stopTimeoutMs } = component
  const over = new AbortController()
  const killed = AbortSignal.any([hurry, AbortSignal.timeout(stopTimeoutMs + marginMs)])
  const abandoned = async () => {
    if (!killed.aborted) await once(killed, 'abort', { signal: over.signal })
    await sleep(marginMs, undefined, { signal: over.signal })
    throw new AppError(`cannot stop ${name}: it is still there after it was to be killed`, {
      code: 'STOP_ABANDONED',
      component: name,
      remedy: 'it hangs in a system call, as on a disk that does not answer: look at its disks, or reboot',
    })
  }
  try {
    await Promise.race([component.stop(killed), abandoned()])
  } finally {
    over.abort()
  }
}
