import { Http2Error, errorCodes } from './protocol.ts'

/** What all connections of a server hold together at most; what one of them may hold is in connection.ts. */
const streamsLimit = 100_000
const partialLimitBytes = 256 * 1024 * 1024
const unreadLimitBytes = 512 * 1024 * 1024

/** A connection as the load sees it. */
export interface Loaded {
  /** Of messages that are not complete. */
  readonly partialBytes: number
  /** Of replies that are not read. */
  readonly queuedBytes: number
  readonly openStreams: number
  /** Ends the connection with a reason. */
  breakOff(reason: unknown): void
}

/** The load of one server. Who makes the most of it is cut off when it is too much, and the others go on. */
export class Load {
  readonly connections = new Set<Loaded>()
  #streams = 0
  #partialBytes = 0
  #queuedBytes = 0
  #isReliefScheduled = false

  /** No further call is taken. */
  get isFull(): boolean {
    return this.#streams >= streamsLimit
  }

  /** No further large reply is made: many could be asked for in one turn, before anybody is cut off. */
  get isBehind(): boolean {
    return this.#queuedBytes > unreadLimitBytes
  }

  addStreams(count: number): void {
    this.#streams += count
    if (this.isFull) this.#scheduleRelief()
  }

  addPartial(bytes: number): void {
    this.#partialBytes += bytes
    if (this.#partialBytes > partialLimitBytes) this.#scheduleRelief()
  }

  addQueued(bytes: number): void {
    this.#queuedBytes += bytes
    if (this.#queuedBytes > unreadLimitBytes) this.#scheduleRelief()
  }

  /** Not at once: a connection is in the middle of something. */
  #scheduleRelief(): void {
    if (this.#isReliefScheduled) return
    this.#isReliefScheduled = true
    setImmediate(() => {
      this.#isReliefScheduled = false
      if (this.#partialBytes > partialLimitBytes) this.#relieve('partialBytes', 'messages are not ended')
      if (this.isBehind) this.#relieve('queuedBytes', 'replies are not read')
      if (this.isFull) this.#relieve('openStreams', 'calls are not ended')
    })
  }

  #relieve(measure: 'partialBytes' | 'queuedBytes' | 'openStreams', reason: string): void {
    let most: Loaded | undefined
    for (const connection of this.connections) {
      if (most === undefined || connection[measure] > most[measure]) most = connection
    }
    most?.breakOff(new Http2Error(errorCodes.enhanceYourCalm, reason))
  }
}
