import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import { Connections, request, type TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import type { Backends } from '../base/relay.ts'

/*
 * Each server is asked by itself (/readyz), all the while:
 *
 *    serving     it says that it is ready
 *    unready     it answers, and says that it is not
 *    away        no answer, or that of somebody else
 *
 * A server leaves `serving` after two failures in a row, and comes back with the first success.
 */
type ServerState = 'serving' | 'unready' | 'away'

export interface ServersTiming {
  /** Between two questions to a server that serves, and to one that does not. */
  readonly intervalMs: number
  readonly awayIntervalMs: number
  /** Longer than this for an answer is a failure. */
  readonly answerLimitMs: number
  /** The same where there is no other to go to. */
  readonly patientLimitMs: number
  /** Without any that serves for so long, those are asked, too, that were servers before: longer than a restart takes. */
  readonly formerAfterMs: number
}

/** So many that were servers before are kept in mind. */
const formerLimit = 5

const defaultTiming: ServersTiming = {
  intervalMs: 1_500,
  awayIntervalMs: 1_000,
  answerLimitMs: 2_000,
  patientLimitMs: 5_000,
  formerAfterMs: 30_000,
}

interface Watched {
  readonly endpoint: string
  state: ServerState
  reason: string
  isTold: boolean
  /** When it was away last: connections from before that lead nowhere. */
  awayAtMs: number
  connections: Connections | undefined
  /** Fires when it is no longer one of the servers. */
  readonly gone: AbortController
}

/** What the cluster has said that its servers are, and which ones it has said before. */
export interface KnownServers {
  readonly servers: readonly string[]
  readonly formerServers: readonly string[]
}

export interface ServersOptions {
  /** What the cluster has said, or said when it was asked last: https://ADDRESS:PORT. */
  readonly listed: readonly string[]
  /** Where else one may be found: gone to only while none of the listed ones serves. */
  readonly fallback: readonly string[]
  /** What the cluster has said before that: one of them may be all that is left of it. */
  readonly former?: readonly string[]
  /** Whom to believe. */
  readonly tls: TlsIdentity
  readonly log: Logger
  readonly timing?: Partial<ServersTiming>
}

/** The API servers of a cluster, as a machine sees them that has none of its own. There is always one to try. */
export class Servers implements Backends {
  readonly #options: ServersOptions
  readonly #timing: ServersTiming
  readonly #servers = new Map<string, Watched>()
  readonly #events = new EventEmitter<{ change: [] }>()
  readonly #asking = new Set<Promise<void>>()
  #listed: readonly string[] = []
  #former: readonly string[]
  /** None of the others has served for long: those of before are asked as well. */
  #areFormerAsked = false
  #servedAtMs = performance.now()
  #preferred: string | undefined
  #signal: AbortSignal | undefined

  constructor(options: ServersOptions) {
    this.#options = options
    this.#timing = { ...defaultTiming, ...options.timing }
    this.#former = options.former ?? []
    this.#events.setMaxListeners(0)
    this.#adopt(options.listed)
  }

  /** Asks them until the signal fires. */
  async watch(signal: AbortSignal): Promise<void> {
    this.#signal = signal
    this.#servedAtMs = performance.now()
    for (const server of this.#servers.values()) this.#begin(server, signal)
    if (!signal.aborted) await once(signal, 'abort')
    await Promise.all(this.#asking)
  }

  /** What the cluster says now. An empty list says nothing: a server that stops takes itself from it. */
  list(endpoints: readonly string[]): void {
    if (endpoints.length === 0) return
    const gone = this.#listed.filter((endpoint) => !endpoints.includes(endpoint))
    const before = new Set([...gone, ...this.#former])
    this.#former = [...before].filter((endpoint) => !endpoints.includes(endpoint)).slice(0, formerLimit)
    this.#areFormerAsked = false
    this.#adopt(endpoints)
    this.#events.emit('change')
  }

  /** For the next start. */
  get known(): KnownServers {
    return { servers: this.#listed, formerServers: this.#former }
  }

  get endpoints(): readonly string[] {
    return [...this.#servers.keys()]
  }

  onChange(listener: () => void): void {
    this.#events.on('change', listener)
  }

  /** Whom to speak to: always the same one while it serves, so that nobody is moved without need. */
  get best(): string | undefined {
    const serving = [...this.#servers.values()].filter(({ state }) => state === 'serving')
    const listed = serving.filter(({ endpoint }) => this.#listed.includes(endpoint))
    const among = listed.length > 0 ? listed : serving
    const chosen =
      among.find(({ endpoint }) => endpoint === this.#preferred) ??
      // Machines that begin at the same time do not all begin with the same one.
      among[Math.floor(Math.random() * among.length)]
    this.#preferred = chosen?.endpoint ?? this.#preferred
    return chosen?.endpoint
  }

  serves(endpoint: string): boolean {
    return this.#servers.get(endpoint)?.state === 'serving'
  }

  /** A server that only says that it is not ready may get on with what it has begun, while there is no other. */
  refuge(endpoint: string, sinceMs: number): string | undefined {
    const { best } = this
    const left = this.#servers.get(endpoint)
    if (best === undefined) return undefined
    if (left?.state !== 'serving' || left.awayAtMs > sinceMs) return best
    const isListed = (one: string) => this.#listed.includes(one)
    return !isListed(endpoint) && isListed(best) ? best : undefined
  }

  /** Resolves with one that serves, as soon as there is one. Rejects with the reason of the signal. */
  async whenServing(signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted()
      const { best } = this
      if (best !== undefined) return best
      await once(this.#events, 'change', { signal })
    }
  }

  /** Resolves when none of them serves, each having been asked. Rejects with the reason of the signal. */
  async whenNoneServes(signal: AbortSignal): Promise<void> {
    while (this.best !== undefined || [...this.#servers.values()].some(({ isTold }) => !isTold))
      await once(this.#events, 'change', { signal })
  }

  suspect(endpoint: string, reason: string): void {
    const server = this.#servers.get(endpoint)
    if (server === undefined) return
    hangUp(server)
    this.#enter(server, 'away', reason)
  }

  /** What is the matter, in a sentence; undefined when all is well. A listed one that serves makes up for other ways to it. */
  trouble(): string | undefined {
    const all = [...this.#servers.values()]
    const isServed = all.some(({ endpoint, state }) => state === 'serving' && this.#listed.includes(endpoint))
    const said = all
      .filter(({ endpoint, state }) => state !== 'serving' && (!isServed || this.#listed.includes(endpoint)))
      .map(
        ({ endpoint, state, reason }) =>
          `${endpoint} ${state === 'away' ? 'is away' : 'is not ready'}: ${reason}`,
      )
    return said.length === 0 ? undefined : said.join('; ')
  }

  #adopt(listed: readonly string[]): void {
    this.#listed = listed
    const former = this.#areFormerAsked ? this.#former : []
    const wanted = new Set([...listed, ...this.#options.fallback, ...former])
    for (const [endpoint, server] of this.#servers) {
      if (wanted.has(endpoint)) continue
      this.#servers.delete(endpoint)
      server.gone.abort()
      this.#options.log.info({ endpoint }, 'no longer a server of the cluster')
    }
    for (const endpoint of wanted) {
      if (this.#servers.has(endpoint)) continue
      const server: Watched = {
        ...{ endpoint, state: 'away', reason: 'it has not answered yet', isTold: false },
        ...{ awayAtMs: performance.now(), connections: undefined, gone: new AbortController() },
      }
      this.#servers.set(endpoint, server)
      if (this.#signal !== undefined) this.#begin(server, this.#signal)
    }
  }

  #begin(server: Watched, signal: AbortSignal): void {
    const asking = this.#watchOne(server, AbortSignal.any([signal, server.gone.signal]))
    this.#asking.add(asking)
    void asking.finally(() => this.#asking.delete(asking))
  }

  async #watchOne(server: Watched, signal: AbortSignal): Promise<void> {
    let failures = 0
    while (!signal.aborted) {
      const found = await this.#ask(server, signal)
      if (signal.aborted) break
      failures = found.state === 'serving' ? 0 : failures + 1
      // The first failure of one that serves says little: it is asked again at once.
      if (found.state !== 'serving') hangUp(server)
      if (failures === 1 && server.state === 'serving') continue
      this.#enter(server, found.state, found.reason)
      this.#askFormer()
      const { intervalMs, awayIntervalMs } = this.#timing
      const pauseMs = found.state === 'serving' ? intervalMs : awayIntervalMs
      await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
    }
    hangUp(server)
  }

  #askFormer(): void {
    const nowMs = performance.now()
    if (this.best !== undefined) this.#servedAtMs = nowMs
    if (this.#areFormerAsked || this.#former.length === 0) return
    if (nowMs - this.#servedAtMs < this.#timing.formerAfterMs) return
    this.#options.log.warn({ endpoints: this.#former }, 'no server serves; those of before are asked, too')
    this.#areFormerAsked = true
    this.#adopt(this.#listed)
  }

  async #ask(server: Watched, signal: AbortSignal): Promise<{ state: ServerState; reason: string }> {
    const { tls } = this.#options
    const { answerLimitMs, patientLimitMs } = this.#timing
    const isPatient = server.state !== 'serving' || this.#servers.size === 1
    const url = `${server.endpoint}/readyz`
    try {
      server.connections ??= new Connections(url, tls)
      const { connections } = server
      const timeoutMs = isPatient ? patientLimitMs : answerLimitMs
      const { status, body } = await request({
        ...{ url, tls, connections, signal, timeoutMs },
        maxBytes: 64 << 10,
      })
      if (status === 200) return { state: 'serving', reason: '' }
      const said = /^\[-\].*$/m.exec(body)?.[0] ?? body.slice(0, 100)
      return { state: 'unready', reason: `it answers ${status}: ${said.replace(/\s+/g, ' ').slice(0, 200)}` }
    } catch (error) {
      return { state: 'away', reason: shortReason(error) }
    }
  }

  #enter(server: Watched, state: ServerState, reason: string): void {
    const isOther = server.state !== state
    const isFirst = !server.isTold
    Object.assign(server, { state, reason, isTold: true })
    if (state === 'away') server.awayAtMs = performance.now()
    if (!isOther && !isFirst) return
    const { log } = this.#options
    const { endpoint } = server
    if (state === 'serving') log.info({ endpoint }, 'a server serves')
    else log.warn({ endpoint, reason }, state === 'away' ? 'a server is away' : 'a server is not ready')
    this.#events.emit('change')
  }
}

function hangUp(server: Watched): void {
  server.connections?.[Symbol.dispose]()
  server.connections = undefined
}

/** The innermost one, without what was called: of every server the same is asked. */
function shortReason(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? shortReason(error.cause) : describeError(error)
}
