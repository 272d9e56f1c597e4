import type { Capability, Component } from '../components/component.ts'

/** Between SIGKILL and the kernel's last word a process may still be there for a moment. */
const stopMarginMs = 5_000

export interface StartOptions {
  /** In the order of their start; what one needs stands before it. */
  readonly components: readonly Component[]
  readonly signal: AbortSignal
  readonly onReady: (component: Component) => void
}

/**
 * Starts each component as soon as what it needs is ready. When one fails the others are given up and
 * the first error is thrown; the caller stops whatever runs.
 */
export async function startComponents({ components, signal, onReady }: StartOptions): Promise<void> {
  const giveUp = new AbortController()
  const begunOnes: Promise<void>[] = []
  const whenReady = new Map<Capability, Promise<void>>()
  for (const component of components) {
    const needed = component.needs.map((capability) => {
      const ready = whenReady.get(capability)
      if (ready === undefined)
        throw new Error(`bug: ${component.name} needs ${capability}, which nothing before it provides`)
      return ready
    })
    const begun = startOne(component, needed, AbortSignal.any([signal, giveUp.signal])).then(() =>
      onReady(component),
    )
    begun.catch((cause) => giveUp.abort(cause))
    begunOnes.push(begun)
    for (const capability of component.provides) whenReady.set(capability, begun)
  }
  await Promise.allSettled(begunOnes)
  // The abort reason is the first failure; those that followed from it say nothing new.
  giveUp.signal.throwIfAborted()
  signal.throwIfAborted()
}

async function startOne(
  component: Component,
  needed: readonly Promise<void>[],
  signal: AbortSignal,
): Promise<void> {
  await component.init()
  await Promise.all(needed)
  signal.throwIfAborted()
  await component.start(signal)
  const timeout = AbortSignal.timeout(component.readyTimeoutMs)
  await component.ready(AbortSignal.any([signal, timeout]))
}

export interface StopOptions {
  readonly components: readonly Component[]
  /** Aborted: what still runs is killed at once. */
  readonly hurry: AbortSignal
  /** Called with the name before a component is stopped, and again with how long it took, ms. */
  readonly onStop: (component: Component, tookMs: number) => void
  /** Runs when everything up to and including what provides the capability has stopped. */
  readonly afterLosing?: Partial<Record<Capability, () => Promise<void>>>
}

/** Stops strictly one after the other, in the reverse of the start. An error of one does not spare the rest. */
export async function stopComponents({
  components,
  hurry,
  onStop,
  afterLosing = {},
}: StopOptions): Promise<void> {
  const errors: unknown[] = []
  for (const component of components.toReversed()) {
    const begun = performance.now()
    const limit = AbortSignal.timeout(component.stopTimeoutMs + stopMarginMs)
    await component.stop(AbortSignal.any([hurry, limit])).catch((error: unknown) => errors.push(error))
    onStop(component, performance.now() - begun)
    for (const capability of component.provides) {
      await afterLosing[capability]?.().catch((error: unknown) => errors.push(error))
    }
  }
  if (errors.length > 0)
    throw errors.length === 1 ? errors[0] : new AggregateError(errors, 'cannot stop every component')
}
