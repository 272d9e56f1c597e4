/*
 * Who may ask for the end: a signal of the process, `k8s stop`, `k8s stop --pods`, in any order and number.
 *
 *    first one                          everything stops in good order
 *    another one that asks for more     (--pods): the pods end, too
 *    another one                        what still runs is killed
 */
export class StopRequests {
  readonly #asked = new AbortController()
  readonly #hurried = new AbortController()
  #endPods: boolean

  /** signalled, hurried: the first and the second signal of the process; endPods: whether the settings say so. */
  constructor({
    signalled,
    hurried,
    endPods,
  }: {
    signalled: AbortSignal
    hurried: AbortSignal
    endPods: boolean
  }) {
    this.#endPods = endPods
    const onSignal = () => this.ask({ pods: false })
    const onHurry = () => this.#hurried.abort()
    if (signalled.aborted) onSignal()
    if (hurried.aborted) onHurry()
    signalled.addEventListener('abort', onSignal)
    hurried.addEventListener('abort', onHurry)
  }

  ask({ pods }: { pods: boolean }): void {
    const asksForMore = pods && !this.#endPods
    this.#endPods ||= pods
    if (!this.asked.aborted) this.#asked.abort()
    else if (!asksForMore) this.#hurried.abort()
  }

  /** Whether the pods end with the daemon, as far as it has been asked. */
  get endPods(): boolean {
    return this.#endPods
  }

  get asked(): AbortSignal {
    return this.#asked.signal
  }

  get hurried(): AbortSignal {
    return this.#hurried.signal
  }
}
