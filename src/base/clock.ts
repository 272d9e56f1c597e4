/** A clock that says less was never set: it is from before this software existed. */
export const earliestClock = new Date('2026-11-01T00:00:00Z')

/** Tells when somebody has set the clock: by how much it has gone on beside the time that has passed. */
export class ClockWatch {
  readonly #wallMs: () => number
  readonly #passedMs: () => number
  #offsetMs: number

  constructor(wallMs = () => Date.now(), passedMs = () => performance.now()) {
    this.#wallMs = wallMs
    this.#passedMs = passedMs
    this.#offsetMs = wallMs() - passedMs()
  }

  /** Since the last call, ms; negative when it was put back. What a machine that was asleep has missed counts. */
  setByMs(): number {
    const offsetMs = this.#wallMs() - this.#passedMs()
    const setByMs = offsetMs - this.#offsetMs
    this.#offsetMs = offsetMs
    return setByMs
  }
}
