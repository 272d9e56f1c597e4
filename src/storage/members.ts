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
 *    away         no answer, or one that is no etcd's
 *
 * A member leaves `serving` after two failures in a row, and comes back with the first success.
 */
export type MemberState = 'serving' | 'waiting' | 'away'

export interface MembersTiming {
  /** Between two questions to a member, where there are others to go to, and where there is no other. */
  readonly intervalMs: number
  readonly lonelyIntervalMs: number
  /** Between two questions to one that is away. */
  readonly awayIntervalMs: number
  /** Longer than this for an answer is a failure; one that is alone has more time. */
  readonly answerLimitMs: number
  readonly patientLimitMs: number
  /** Between two looks at what it says of itself: its alarms, its version. */
  readonly statusIntervalMs: number
}

/** With them a member that hangs is left after 0.85 s. */
const defaultTiming: MembersTiming = {
  intervalMs: 250,
  lonelyIntervalMs: 2_000,
  awayIntervalMs: 500,
  answerLimitMs: 300,
  patientLimitMs: 5_000,
  statusIntervalMs: 10_000,
}

interface Watched {
  readonly endpoint: string
  state: MemberState
  reason: string | undefined
  /** In etcd's words. */
  alarms: readonly string[]
  /** Asked at once instead of after the interval. */
  hurry: AbortController
}

export interface MembersOptions {
  readonly endpoints: readonly string[]
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  /** What is read to see whether a member can. */
  readonly key: string
  readonly log: Logger
  readonly timing?: Partial<MembersTiming>
}

/** The members of an etcd cluster, and how each of them is. */
export class Members {
  readonly #options: MembersOptions
  readonly #timing: MembersTiming
  readonly #members: readonly Watched[]
  readonly #events = new EventEmitter<{ change: [] }>()
  #preferred: string | undefined

  constructor(options: MembersOptions) {
    this.#options = options
    this.#timing = { ...defaultTiming, ...options.timing }
    this.#members = options.endpoints.map((endpoint) => ({
      endpoint,
      ...{ state: 'away', reason: 'it has not answered yet', alarms: [], hurry: new AbortController() },
    }))
    this.#events.setMaxListeners(0)
  }

  /** Asks them until the signal fires. */
  async watch(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#members.map((member) => this.#watchOne(member, signal)))
  }

  /** Called whenever one of them has become another way. */
  onChange(listener: () => void): void {
    this.#events.on('change', listener)
  }

  /** Whom to speak to: always the same one while it serves, so that nobody is moved without need. */
  get best(): string | undefined {
    const serving = this.#members.filter(({ state }) => state === 'serving')
    const chosen = serving.find(({ endpoint }) => endpoint === this.#preferred) ?? serving[0]
    this.#preferred = chosen?.endpoint ?? this.#preferred
    return chosen?.endpoint
  }

  serves(endpoint: string): boolean {
    return this.#members.some((member) => member.endpoint === endpoint && member.state === 'serving')
  }

  /** Resolves with one that serves, as soon as there is one. Rejects with the reason of the signal. */
  async whenServing(signal: AbortSignal): Promise<string> {
    for (;;) {
      const { best } = this
      if (best !== undefined) return best
      await once(this.#events, 'change', { signal })
    }
  }

  /** Somebody has found that it does not take connections: it is left at once, and asked. */
  suspect(endpoint: string, reason: string): void {
    const member = this.#members.find((candidate) => candidate.endpoint === endpoint)
    if (member === undefined) return
    this.#enter(member, 'away', reason)
    member.hurry.abort()
  }

  /** What is the matter, in a sentence; undefined when all is well. */
  trouble(): string | undefined {
    const troubled = this.#members.filter(({ state }) => state !== 'serving')
    const away = troubled.map(({ endpoint, state, reason }) =>
      state === 'waiting' ? `${endpoint} has no leader: ${reason}` : `${endpoint} is away: ${reason}`,
    )
    const alarms = [...new Set(this.#members.flatMap((member) => member.alarms))]
    const said = [...away, ...alarms.map(alarmWords)]
    return said.length === 0 ? undefined : said.join('; ')
  }

  async #watchOne(member: Watched, signal: AbortSignal): Promise<void> {
    let connection: Member | undefined
    let failures = 0
    let statusAtMs = Number.NEGATIVE_INFINITY
    while (!signal.aborted) {
      try {
        connection ??= new Member({ address: member.endpoint, tls: this.#options.tls() })
        const state = await this.#ask(connection, {
          isSure: failures === 0 && member.state === 'serving',
          signal,
        })
        failures = state.name === 'serving' ? 0 : failures + 1
        // The first failure of one that serves says little: it is asked again at once.
        if (failures === 1 && member.state === 'serving') continue
        this.#enter(member, state.name, state.reason)
        if (state.name === 'away') {
          connection[Symbol.dispose]()
          connection = undefined
        } else if (performance.now() - statusAtMs >= this.#timing.statusIntervalMs) {
          statusAtMs = performance.now()
          await this.#lookAtAlarms(connection, member, signal)
        }
      } catch (error) {
        this.#enter(member, 'away', describeError(error))
      }
      await this.#pause(member, signal)
    }
    connection?.[Symbol.dispose]()
  }

  async #ask(
    connection: Member,
    { isSure, signal }: { isSure: boolean; signal: AbortSignal },
  ): Promise<{ name: MemberState; reason?: string }> {
    const { answerLimitMs, patientLimitMs } = this.#timing
    const limitMs = this.#members.length === 1 ? patientLimitMs : answerLimitMs
    const read = async (isLocal: boolean): Promise<string | undefined> => {
      using limit = new TimeLimit('get an answer', limitMs)
      const limited = AbortSignal.any([signal, limit.signal])
      try {
        await connection.read(this.#options.key, { isLocal, signal: limited })
        return undefined
      } catch (error) {
        return shortReason(error)
      }
    }
    const newest = read(false)
    const local = isSure ? undefined : read(true)
    const reason = await newest
    if (reason === undefined) return { name: 'serving' }
    return (await local) === undefined ? { name: 'waiting', reason } : { name: 'away', reason }
  }

  async #lookAtAlarms(connection: Member, member: Watched, signal: AbortSignal): Promise<void> {
    using limit = new TimeLimit('get an answer', this.#timing.patientLimitMs)
    const { errors } = await connection
      .status(AbortSignal.any([signal, limit.signal]))
      .catch(() => ({ errors: [] as string[] }))
    // That there is no leader is known otherwise.
    const alarms = errors.filter((error) => /\balarm\b/i.test(error))
    if (alarms.join() === member.alarms.join()) return
    member.alarms = alarms
    const { log } = this.#options
    if (alarms.length > 0) log.error({ endpoint: member.endpoint, alarms }, 'etcd has raised an alarm')
    else log.info({ endpoint: member.endpoint }, 'etcd has lowered its alarm')
    this.#events.emit('change')
  }

  #enter(member: Watched, state: MemberState, reason?: string): void {
    const isNews = member.state !== state || member.reason !== reason
    const former = member.state
    Object.assign(member, { state, reason })
    if (former !== state) {
      const { log } = this.#options
      const said = { endpoint: member.endpoint, ...(reason !== undefined && { reason }) }
      if (state === 'serving') log.info(said, 'etcd serves')
      else log.warn(said, state === 'waiting' ? 'etcd has no leader' : 'etcd is away')
    }
    if (isNews) this.#events.emit('change')
  }

  async #pause(member: Watched, signal: AbortSignal): Promise<void> {
    const { awayIntervalMs, lonelyIntervalMs, intervalMs } = this.#timing
    const calmMs = this.#members.length === 1 ? lonelyIntervalMs : intervalMs
    member.hurry = new AbortController()
    await sleep(member.state === 'serving' ? calmMs : awayIntervalMs, undefined, {
      signal: AbortSignal.any([signal, member.hurry.signal]),
      ref: false,
    }).catch(() => {})
  }
}

/** The innermost one, without what was called: of every member the same is asked. */
function shortReason(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? shortReason(error.cause) : describeError(error)
}

function alarmWords(alarm: string): string {
  if (!alarm.includes('NOSPACE')) return `etcd says: ${alarm}`
  return 'no writes: etcd has reached its quota (NOSPACE). Compact and defragment it, or give it a larger one; then lower the alarm ("etcdctl alarm disarm", or "k8s db disarm --endpoint URL")'
}
