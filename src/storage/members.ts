import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { TimeLimit } from '../base/time-limit.ts'
import { Member } from '../datastore/member.ts'

/*
 * Each member is asked by itself, all the while:
 *
 *    serving      it reads the newest state: a leader and a majority stand behind it
 *    waiting      it answers, but has no leader: an election, or it is cut off from the others
 *    away         no answer, or one that is no etcd's, or that of another etcd
 *
 * A member leaves `serving` after two failures in a row, and comes back with the first success.
 */
export type MemberState = 'serving' | 'waiting' | 'away'

export interface MembersTiming {
  /** Between two questions to a member, where there are others to go to, and where there is no other. */
  readonly intervalMs: number
  readonly lonelyIntervalMs: number
  /** The same of one that nobody needs while the preferred one serves. */
  readonly spareIntervalMs: number
  /** Between two questions to one that does not serve. */
  readonly awayIntervalMs: number
  /** Longer than this for an answer is a failure of one that serves. */
  readonly answerLimitMs: number
  /** The same for the preferred one, on this very machine: when that is slow, the others seldom are faster. */
  readonly preferredLimitMs: number
  /** The same for one that has to be connected to first, and where there is no other. */
  readonly patientLimitMs: number
  /** Between two looks at what it says of itself: its alarms. */
  readonly statusIntervalMs: number
  /** Until who went to another one comes back to the preferred one. */
  readonly settledMs: number
}

/** With them a member that hangs is left after 0.85 s. */
const defaultTiming: MembersTiming = {
  intervalMs: 250,
  lonelyIntervalMs: 2_000,
  spareIntervalMs: 1_000,
  awayIntervalMs: 500,
  answerLimitMs: 300,
  preferredLimitMs: 1_000,
  patientLimitMs: 5_000,
  statusIntervalMs: 10_000,
  settledMs: 20_000,
}

interface Watched {
  readonly endpoint: string
  state: MemberState
  reason: string | undefined
  /** Whether its state was logged. */
  isTold: boolean
  /** Over which it is asked. */
  connection: Member | undefined
  /** When the last question was put that it answered by serving, and when the first that it has not since then. */
  servedAtMs: number
  failedAtMs: number
  /** In etcd's words. */
  alarms: readonly string[]
  /** It has served for a while. */
  isSettled: boolean
  /** Fires when it is no longer one of them. */
  readonly gone: AbortController
}

export interface MembersOptions {
  readonly endpoints: readonly string[]
  /** The one that is gone to whenever it serves. */
  readonly preferred?: string
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  /** What is read to see whether a member can. */
  readonly key: string
  /** Whether the daemon cares for them itself. */
  readonly isOwn?: boolean
  readonly log: Logger
  readonly timing?: Partial<MembersTiming>
}

/** The members of an etcd cluster, and how each of them is. */
export class Members {
  /** Of the etcd that they have to be members of, once it is known. */
  clusterId: bigint | undefined
  readonly #options: MembersOptions
  readonly #timing: MembersTiming
  #members: readonly Watched[]
  readonly #events = new EventEmitter<{ change: [] }>()
  #chosen: string | undefined
  #watching: { readonly signal: AbortSignal; readonly loops: Set<Promise<void>> } | undefined

  constructor(options: MembersOptions) {
    this.#options = options
    this.#timing = { ...defaultTiming, ...options.timing }
    this.#members = options.endpoints.map(newlyWatched)
    this.#events.setMaxListeners(0)
  }

  get endpoints(): string[] {
    return this.#members.map(({ endpoint }) => endpoint)
  }

  /** These are the members from now on; connections to others are left. */
  setEndpoints(endpoints: readonly string[]): void {
    if (endpoints.join() === this.endpoints.join()) return
    const former = this.#members
    this.#members = endpoints.map((endpoint) => this.#find(endpoint) ?? newlyWatched(endpoint))
    for (const member of former) if (!this.#members.includes(member)) member.gone.abort()
    for (const member of this.#members) if (!former.includes(member)) this.#begin(member)
    this.#events.emit('change')
  }

  /** Asks them until the signal fires. */
  async watch(signal: AbortSignal): Promise<void> {
    this.#watching = { signal, loops: new Set() }
    for (const member of this.#members) this.#begin(member)
    if (!signal.aborted) await once(signal, 'abort')
    await Promise.all(this.#watching.loops)
  }

  #begin(member: Watched): void {
    if (this.#watching === undefined) return
    const { signal, loops } = this.#watching
    const loop = this.#watchOne(member, AbortSignal.any([signal, member.gone.signal]))
    loops.add(loop)
    void loop.finally(() => loops.delete(loop))
  }

  /** Called whenever one of them has become another way, or is there to go to from one that has. */
  onChange(listener: () => void): void {
    this.#events.on('change', listener)
  }

  /** Whom to speak to: the preferred one, or always the same one while it serves, so that nobody is moved without need. */
  get best(): string | undefined {
    const serving = this.#members.filter(({ state }) => state === 'serving')
    const find = (wanted: string | undefined) => serving.find(({ endpoint }) => endpoint === wanted)
    const chosen = find(this.#options.preferred) ?? find(this.#chosen) ?? serving[0]
    this.#chosen = chosen?.endpoint ?? this.#chosen
    return chosen?.endpoint
  }

  /** Since when it does not answer, performance.now; undefined: it does, or is none of them. */
  awaySince(endpoint: string): number | undefined {
    const member = this.#find(endpoint)
    return member?.state === 'away' ? Math.max(member.failedAtMs, member.servedAtMs) : undefined
  }

  serves(endpoint: string): boolean {
    return this.#find(endpoint)?.state === 'serving'
  }

  /**
   * Whom to go to from this member; undefined: it is best to stay. One that merely has no leader is left only for one that has served
   * since: when all of an etcd stalls, some of its members fail a moment before the others.
   */
  refuge(endpoint: string): string | undefined {
    const left = this.#find(endpoint)
    // One that is no member any more has nothing new to say.
    if (left === undefined) return this.best
    if (left.state === 'serving') return this.#homeFrom(endpoint)
    const isSafe = (member: Watched) => left.state === 'away' || member.servedAtMs > left.failedAtMs
    return this.#members.some((member) => member.state === 'serving' && isSafe(member))
      ? this.best
      : undefined
  }

  /** Who went away from the preferred one comes back when it has served for a while. */
  #homeFrom(endpoint: string): string | undefined {
    const { preferred } = this.#options
    if (preferred === undefined || endpoint === preferred) return undefined
    return this.#find(preferred)?.isSettled ? preferred : undefined
  }

  /** Resolves with one that serves, as soon as there is one. Rejects with the reason of the signal. */
  async whenServing(signal: AbortSignal): Promise<string> {
    for (;;) {
      const { best } = this
      if (best !== undefined) return best
      await once(this.#events, 'change', { signal })
    }
  }

  /** Somebody has found that it does not take connections: it has to take a new one of ours before it is trusted again. */
  suspect(endpoint: string, reason: string): void {
    const member = this.#find(endpoint)
    if (member === undefined) return
    hangUp(member)
    this.#enter(member, 'away', reason)
  }

  /** What is the matter, in a sentence; undefined when all is well. */
  trouble(): string | undefined {
    const troubled = this.#members.filter(({ state }) => state !== 'serving')
    const away = troubled.map(({ endpoint, state, reason }) =>
      state === 'waiting' ? `${endpoint} has no leader: ${reason}` : `${endpoint} is away: ${reason}`,
    )
    const alarms = [...new Set(this.#members.flatMap((member) => member.alarms))]
    const { isOwn = false } = this.#options
    const said = [...away, ...alarms.map((alarm) => alarmWords(alarm, isOwn))]
    return said.length === 0 ? undefined : said.join('; ')
  }

  #find(endpoint: string): Watched | undefined {
    return this.#members.find((member) => member.endpoint === endpoint)
  }

  async #watchOne(member: Watched, signal: AbortSignal): Promise<void> {
    let failures = 0
    let statusAtMs = Number.NEGATIVE_INFINITY
    while (!signal.aborted) {
      const askedAtMs = performance.now()
      const isSure = failures === 0 && member.state === 'serving'
      const state = await this.#ask(member, { isSure, signal })
      if (signal.aborted) break
      if (state.name === 'serving') {
        failures = 0
        member.servedAtMs = askedAtMs
        this.#settle(member, askedAtMs)
      } else if (failures++ === 0) member.failedAtMs = askedAtMs
      // The first failure of one that serves says little: it is asked again at once.
      if (failures === 1 && member.state === 'serving' && !signal.aborted) continue
      this.#enter(member, state.name, state.reason)
      if (state.name === 'away') hangUp(member)
      else if (askedAtMs - statusAtMs >= this.#timing.statusIntervalMs) {
        statusAtMs = askedAtMs
        await this.#lookAtAlarms(member, signal)
      }
      await this.#pause(member, signal)
    }
    hangUp(member)
  }

  async #ask(
    member: Watched,
    { isSure, signal }: { isSure: boolean; signal: AbortSignal },
  ): Promise<{ name: MemberState; reason?: string }> {
    const { answerLimitMs, preferredLimitMs, patientLimitMs } = this.#timing
    const calmLimitMs = member.endpoint === this.#options.preferred ? preferredLimitMs : answerLimitMs
    const isPatient = member.state !== 'serving' || this.#members.length === 1
    const ask = async (isLocal: boolean): Promise<string | undefined> => {
      using limit = new TimeLimit('get an answer', isPatient ? patientLimitMs : calmLimitMs)
      const limited = AbortSignal.any([signal, limit.signal])
      try {
        const connection = (member.connection ??= this.#connect(member))
        const { clusterId } = await connection.read(this.#options.key, { isLocal, signal: limited })
        const isKnown = this.clusterId !== undefined && clusterId !== undefined
        if (!isKnown || this.clusterId === clusterId) return undefined
        return `it belongs to another etcd, ${clusterId?.toString(16)} and not ${this.clusterId?.toString(16)}`
      } catch (error) {
        return shortReason(error)
      }
    }
    const newest = ask(false)
    const local = isSure ? undefined : ask(true)
    const reason = await newest
    if (reason === undefined) return { name: 'serving' }
    return local !== undefined && (await local) === undefined
      ? { name: 'waiting', reason }
      : { name: 'away', reason }
  }

  #settle(member: Watched, nowMs: number): void {
    if (member.isSettled || nowMs - member.failedAtMs < this.#timing.settledMs) return
    member.isSettled = true
    if (member.endpoint === this.#options.preferred) this.#events.emit('change')
  }

  #connect({ endpoint }: Watched): Member {
    return new Member({ address: endpoint, tls: this.#options.tls() })
  }

  /** What is known of them stays when there is no answer. */
  async #lookAtAlarms(member: Watched, signal: AbortSignal): Promise<void> {
    using limit = new TimeLimit('get an answer', this.#timing.answerLimitMs)
    const status = await member.connection
      ?.status(AbortSignal.any([signal, limit.signal]))
      .catch(() => undefined)
    if (status === undefined) return
    // That there is no leader is known otherwise.
    const alarms = status.errors.filter((error) => /\balarm\b/i.test(error))
    if (alarms.join() === member.alarms.join()) return
    member.alarms = alarms
    const { log } = this.#options
    if (alarms.length > 0) log.error({ endpoint: member.endpoint, alarms }, 'etcd has raised an alarm')
    else log.info({ endpoint: member.endpoint }, 'etcd has lowered its alarm')
    this.#events.emit('change')
  }

  #enter(member: Watched, state: MemberState, reason?: string): void {
    const isOther = member.state !== state
    if (state !== 'serving') member.isSettled = false
    Object.assign(member, { state, reason })
    if (isOther || !member.isTold) {
      member.isTold = true
      const { log } = this.#options
      const said = { endpoint: member.endpoint, ...(reason !== undefined && { reason }) }
      if (state === 'serving') log.info(said, 'etcd serves')
      else log.warn(said, state === 'waiting' ? 'etcd has no leader' : 'etcd is away')
    }
    if (isOther || this.#members.some((one) => one.state !== 'serving')) this.#events.emit('change')
  }

  async #pause(member: Watched, signal: AbortSignal): Promise<void> {
    const { awayIntervalMs, lonelyIntervalMs, spareIntervalMs, intervalMs } = this.#timing
    const { preferred } = this.#options
    const isSpare =
      preferred !== undefined && member.endpoint !== preferred && this.#find(preferred)?.isSettled === true
    const calmMs = this.#members.length === 1 ? lonelyIntervalMs : isSpare ? spareIntervalMs : intervalMs
    const pauseMs = member.state === 'serving' ? calmMs : awayIntervalMs
    await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
  }
}

function newlyWatched(endpoint: string): Watched {
  return {
    endpoint,
    state: 'away',
    reason: 'it has not answered yet',
    isTold: false,
    connection: undefined,
    servedAtMs: Number.NEGATIVE_INFINITY,
    failedAtMs: performance.now(),
    alarms: [],
    isSettled: false,
    gone: new AbortController(),
  }
}

function hangUp(member: Watched): void {
  member.connection?.[Symbol.dispose]()
  member.connection = undefined
}

/** The innermost one, without what was called: of every member the same is asked. */
function shortReason(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? shortReason(error.cause) : describeError(error)
}

function alarmWords(alarm: string, isOwn: boolean): string {
  if (!alarm.includes('NOSPACE')) return `etcd says: ${alarm}`
  if (isOwn) return 'no writes: etcd has reached its quota (NOSPACE)'
  return 'no writes: etcd has reached its quota (NOSPACE). Compact and defragment it, or give it a larger one; then lower the alarm ("etcdctl alarm disarm", or "k8s db disarm --endpoint URL")'
}
