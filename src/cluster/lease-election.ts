import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Leadership } from './leadership.ts'

/*
 * One Lease of Kubernetes says which of the servers leads, by client-go's rules (tools/leaderelection):
 *
 *    waiting    another holds it. Whoever has seen it unchanged for as long as it is given for, by its own clock, takes it
 *    leading    it is renewed at every turn; without a renewal for `renewLimitMs` the lead is given up, before others take it
 *    the end    the last task that ends gives it back, so that nobody has to wait
 */

export interface ElectionTiming {
  /** How long others leave it to who renewed it last. */
  readonly leaseMs: number
  /** After that long without a renewal one does not lead any more; less than the above. */
  readonly renewLimitMs: number
  /** Between two turns, and before the API has answered for the first time. */
  readonly retryMs: number
  readonly firstRetryMs: number
}

/** As the components have it: a slow disk does not take it away. */
const defaultTiming: ElectionTiming = {
  leaseMs: 30_000,
  renewLimitMs: 20_000,
  retryMs: 4_000,
  firstRetryMs: 500,
}
/** For giving it back at the end. */
const releaseLimitMs = 3_000

export interface HeldLease {
  /** '': nobody's. */
  readonly holder: string
  /** For how long it is given. */
  readonly leaseMs: number
  /** How often another took it. */
  readonly transitions: number
  /** Changes with each write. */
  readonly version: string
}

/** The Lease, as the API has it. Writes reject when somebody else has written since `version`. */
export interface LeaseStore {
  /** undefined: there is none. */
  get(signal: AbortSignal): Promise<HeldLease | undefined>
  create(lease: Omit<HeldLease, 'version'>, signal: AbortSignal): Promise<HeldLease>
  replace(lease: HeldLease, signal: AbortSignal): Promise<HeldLease>
}

/** Which of the servers leads, by a Lease. It is looked at only while there is a task that needs it. */
export class LeaseElection implements Leadership {
  readonly #store: LeaseStore
  readonly #name: string
  readonly #log: Logger
  readonly #verb: string
  readonly #timing: ElectionTiming
  #tasks = 0
  #turns: { readonly end: AbortController; readonly over: Promise<void> } | undefined
  /** Aborted when the lead is lost. */
  #term: AbortController | undefined
  #begun = Promise.withResolvers<void>()
  #lease: HeldLease | undefined
  #renewedAtMs = 0
  #seenAtMs = 0
  #hasAnswered = false

  /** name: this server's, which no other has. */
  constructor(given: {
    store: LeaseStore
    name: string
    log: Logger
    /** What who holds it does. */
    verb?: 'leads' | 'joins'
    timing?: Partial<ElectionTiming>
  }) {
    this.#store = given.store
    this.#name = given.name
    this.#log = given.log
    this.#verb = given.verb ?? 'leads'
    this.#timing = { ...defaultTiming, ...given.timing }
  }

  async whileLeading(run: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    this.#enter()
    try {
      while (!signal.aborted) {
        const term = await this.#lead(signal)
        if (term === undefined) return
        try {
          await run(AbortSignal.any([signal, term]))
        } catch (error) {
          // What ends with the lead begins anew with the next one.
          if (!term.aborted) throw error
        }
        if (term.aborted) continue
        return
      }
    } finally {
      await this.#leave()
    }
  }

  /** undefined: the signal has fired. */
  async #lead(signal: AbortSignal): Promise<AbortSignal | undefined> {
    const ended = Promise.withResolvers<void>()
    const giveUp = () => ended.resolve()
    signal.addEventListener('abort', giveUp)
    try {
      while (!signal.aborted && this.#term === undefined)
        await Promise.race([this.#begun.promise, ended.promise])
      return signal.aborted ? undefined : this.#term?.signal
    } finally {
      signal.removeEventListener('abort', giveUp)
    }
  }

  #enter(): void {
    this.#tasks++
    if (this.#turns !== undefined) return
    const end = new AbortController()
    this.#turns = { end, over: this.#take(end.signal) }
  }

  async #leave(): Promise<void> {
    if (--this.#tasks > 0) return
    const turns = this.#turns
    this.#turns = undefined
    turns?.end.abort()
    await turns?.over
  }

  async #take(end: AbortSignal): Promise<void> {
    while (!end.aborted) {
      await this.#turn(end)
      if (this.#term !== undefined && performance.now() - this.#renewedAtMs > this.#timing.renewLimitMs)
        this.#lose('it could not be renewed in time')
      const pauseMs = this.#hasAnswered ? this.#timing.retryMs : this.#timing.firstRetryMs
      await sleep(pauseMs, undefined, { signal: end, ref: false }).catch(() => {})
    }
    await this.#giveBack()
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const begunMs = performance.now()
    try {
      // Who leads knows it as it was written last.
      const found = this.#term === undefined ? await this.#store.get(signal) : this.#lease
      this.#hasAnswered = true
      const mine = { holder: this.#name, leaseMs: this.#timing.leaseMs }
      if (found === undefined) {
        this.#lease = await this.#store.create({ ...mine, transitions: 0 }, signal)
      } else {
        if (!this.#isFree(found)) return
        const transitions = found.transitions + (found.holder === this.#name ? 0 : 1)
        this.#lease = await this.#store.replace({ ...found, ...mine, transitions }, signal)
      }
      this.#renewedAtMs = begunMs
      if (this.#term === undefined && !signal.aborted) this.#begin()
    } catch (error) {
      if (signal.aborted) return
      this.#log.debug({ reason: describeError(error) }, 'cannot renew the lease of the servers')
      if (this.#term !== undefined) await this.#lookAgain(signal)
    }
  }

  /** What was written may have come through all the same, or another holds it. */
  async #lookAgain(signal: AbortSignal): Promise<void> {
    const found = await this.#store.get(signal).catch(() => undefined)
    if (found === undefined) return
    if (found.holder === this.#name) this.#lease = found
    else this.#lose(`${found.holder || 'nobody'} holds it`)
  }

  #isFree({ holder, leaseMs, version }: HeldLease): boolean {
    if (holder === '' || holder === this.#name) return true
    const nowMs = performance.now()
    if (this.#lease?.version !== version) this.#seenAtMs = nowMs
    this.#lease = { holder, leaseMs, version, transitions: 0 }
    return nowMs - this.#seenAtMs > Math.max(leaseMs, this.#timing.leaseMs)
  }

  #begin(): void {
    this.#log.info({ name: this.#name }, `this server ${this.#verb}`)
    this.#term = new AbortController()
    this.#begun.resolve()
  }

  #lose(reason: string): void {
    this.#log.warn({ reason }, `this server ${this.#verb} no more`)
    this.#begun = Promise.withResolvers()
    this.#term?.abort(new Error(`another server leads: ${reason}`))
    this.#term = undefined
    this.#lease = undefined
  }

  async #giveBack(): Promise<void> {
    const lease = this.#lease
    if (this.#term === undefined || lease === undefined) return
    this.#begun = Promise.withResolvers()
    this.#term = undefined
    this.#lease = undefined
    await this.#store
      .replace({ ...lease, holder: '' }, AbortSignal.timeout(releaseLimitMs))
      .catch((error: unknown) =>
        this.#log.debug({ reason: describeError(error) }, 'cannot give the lease of the servers back'),
      )
  }
}
