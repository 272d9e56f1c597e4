import type { Exposition } from '../base/exposition.ts'
import type { Component } from '../components/component.ts'
import type { DaemonState, PartStatus } from '../control/messages.ts'

/** How the whole cluster is, and what is not as it should be, a sentence each. */
interface Condition {
  readonly state: DaemonState
  readonly problems: readonly string[]
}

/** A component that has never been ready is a problem once it has ended this often. */
const failuresUntilProblem = 3

/** What is known of the cluster beside the states of its processes. */
export class Board {
  readonly #parts = new Map<string, PartStatus>()
  readonly #reasons = new Map<string, string>()
  readonly #beenReady = new Set<string>()
  /** By the names of parts: what each tells of itself when metrics are asked for. */
  readonly metrics = new Map<string, (metrics: Exposition) => void>()
  isStopping = false

  /** Of a part that no process of ours is: an add-on, the archives of images. The last report of a name counts. */
  report(part: PartStatus): void {
    this.#parts.set(part.name, part)
  }

  forget(name: string): void {
    this.#parts.delete(name)
  }

  part(name: string): PartStatus | undefined {
    return this.#parts.get(name)
  }

  parts(): PartStatus[] {
    return [...this.#parts.values()]
  }

  ready({ name }: Component): void {
    this.#beenReady.add(name)
    this.#reasons.delete(name)
  }

  degraded({ name }: Component, reason: string): void {
    this.#reasons.set(name, reason)
  }

  /** A component that has never been ready and has time left is on its way, and no problem. */
  condition(components: readonly Component[]): Condition {
    const problems: string[] = []
    let isPending = components.length === 0
    for (const component of components) {
      const { name, state, reason, lastFailure, restarts } = component.status()
      if (state === 'ready') {
        // It answers, and says itself that not all is well.
        if (reason !== undefined) problems.push(`${name}: ${reason}`)
        continue
      }
      const why = this.#reasons.get(name) ?? reason ?? lastFailure?.message
      const isLate = this.#beenReady.has(name) || this.#reasons.has(name) || restarts >= failuresUntilProblem
      if (isLate) {
        problems.push(`${name} is ${state}${why === undefined ? '' : `: ${why}`}`)
      } else isPending = true
    }
    for (const { name, state, message, isAwaited = true } of this.#parts.values()) {
      if (state === 'degraded') problems.push(`${name}: ${message ?? state}`)
      else if (state === 'pending' && isAwaited) isPending = true
    }
    return { state: this.#state(problems.length > 0, isPending), problems }
  }

  #state(hasProblems: boolean, isPending: boolean): DaemonState {
    if (this.isStopping) return 'stopping'
    if (hasProblems) return 'degraded'
    return isPending ? 'starting' : 'ready'
  }
}
