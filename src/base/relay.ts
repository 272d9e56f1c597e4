import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { describeError } from './errors.ts'
import type { TlsIdentity } from './http.ts'
import type { Logger } from './logger.ts'

/** For TCP, and TLS, with one that serves. */
const connectLimitMs = 5_000
const keepAliveDelayMs = 30_000
/** What a client says before it is answered: in HTTP/2 its preface and its settings, in TLS its first flight. */
const earlyLimitBytes = 64 * 1024
/** kube-apiserver has one to etcd for each kind of object. */
const connectionsLimit = 10_000

/** Those to whom connections may go, by their URLs, and how each of them is. */
export interface Backends {
  /** Resolves with one that serves, as soon as there is one. Rejects with the reason of the signal. */
  whenServing(signal: AbortSignal): Promise<string>
  serves(endpoint: string): boolean
  /** Whom a connection of that time (performance.now) should go to instead; undefined: it is best to stay. */
  refuge(endpoint: string, sinceMs: number): string | undefined
  /** Somebody has found that it does not take connections. */
  suspect(endpoint: string, reason: string): void
  /** Called whenever one of them has become another way. */
  onChange(listener: () => void): void
}

export interface RelayOptions {
  readonly backends: Backends
  /** As the end of "going over to another ...". */
  readonly title: string
  /** For endpoints that say https, read for every connection; without it bytes are passed on as they are. */
  readonly tls?: () => TlsIdentity
  readonly log: Logger
}

interface Connection {
  readonly endpoint: string
  readonly sinceMs: number
}

/**
 * What stands in front of several servers: the bytes of each connection go to one that serves. When it does not any
 * more, while another one does, its connections are ended, and who had them connects anew, to the other. A client that comes while
 * none serves waits: clients of gRPC that were refused take ever longer until they try again.
 */
export class Relay {
  readonly #options: RelayOptions
  readonly #server = createServer({ noDelay: true }, (client) => void this.#serve(client))
  /** The client's end of each connection, with the server behind it. */
  readonly #connections = new Map<Socket, Connection>()
  readonly #waiting = new Set<Socket>()
  /** Those that are being connected, with what gives it up. */
  readonly #connecting = new Map<AbortController, string>()

  constructor(options: RelayOptions) {
    this.#options = options
    this.#server.maxConnections = connectionsLimit
    this.#server.on('error', (error) =>
      options.log.error({ reason: describeError(error) }, 'cannot accept a client'),
    )
    this.#server.on('drop', () =>
      options.log.warn({ limit: connectionsLimit }, 'turning a client away: there are too many connections'),
    )
    options.backends.onChange(() => this.#leave())
  }

  /** What begins to listen is given by whoever knows where. */
  async listen(begin: (server: Server) => Promise<void>): Promise<void> {
    await begin(this.#server)
  }

  get isListening(): boolean {
    return this.#server.listening
  }

  /** How many are connected, or wait. */
  get clients(): number {
    return this.#connections.size + this.#waiting.size
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (!this.isListening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const client of [...this.#connections.keys(), ...this.#waiting]) client.destroy()
    await closed
  }

  async #serve(client: Socket): Promise<void> {
    const gone = new AbortController()
    // It is read all the time: only so does one hear that it has gone.
    const early: Buffer[] = []
    let earlyBytes = 0
    const keep = (part: Buffer) => {
      early.push(part)
      earlyBytes += part.length
      if (earlyBytes > earlyLimitBytes) client.pause()
    }
    client.on('data', keep)
    client.on('error', () => {})
    client.on('close', () => gone.abort())
    this.#waiting.add(client)
    try {
      while (!gone.signal.aborted) {
        const endpoint = await this.#options.backends.whenServing(gone.signal)
        const upstream = await this.#connect(endpoint, gone.signal)
        if (upstream === undefined) continue
        if (!this.#options.backends.serves(endpoint)) {
          upstream.destroy()
          continue
        }
        client.off('data', keep)
        for (const part of early) upstream.write(part)
        this.#join(client, upstream, endpoint)
        return
      }
    } catch {
      // It did not wait until one serves.
    } finally {
      this.#waiting.delete(client)
    }
  }

  /** undefined: it does not take connections, which their keeper is told. */
  async #connect(endpoint: string, signal: AbortSignal): Promise<Socket | undefined> {
    const { hostname, port, protocol } = new URL(endpoint)
    const { tls } = this.#options
    const isTls = tls !== undefined && protocol === 'https:'
    // A URL leaves out the port that its scheme implies.
    const where = {
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port || (protocol === 'https:' ? 443 : 80)),
      noDelay: true,
    }
    let upstream: Socket | undefined
    const over = new AbortController()
    this.#connecting.set(over, endpoint)
    try {
      upstream = isTls ? connectTls({ ...where, ...tls(), ALPNProtocols: ['h2'] }) : connect(where)
      upstream.on('error', () => {})
      const limited = AbortSignal.any([signal, over.signal, AbortSignal.timeout(connectLimitMs)])
      await once(upstream, isTls ? 'secureConnect' : 'connect', { signal: limited })
      return upstream
    } catch (error) {
      upstream?.destroy()
      if (!signal.aborted && !over.signal.aborted)
        this.#options.backends.suspect(endpoint, describeError(error))
      return undefined
    } finally {
      this.#connecting.delete(over)
    }
  }

  #join(client: Socket, upstream: Socket, endpoint: string): void {
    if (client.destroyed) {
      upstream.destroy()
      return
    }
    upstream.setKeepAlive(true, keepAliveDelayMs)
    this.#connections.set(client, { endpoint, sinceMs: performance.now() })
    client.on('close', () => {
      this.#connections.delete(client)
      upstream.destroy()
    })
    upstream.on('close', () => {
      // With TLS 1.3 one hears only now that our certificate is refused.
      if (upstream.bytesRead === 0 && !client.destroyed)
        this.#options.backends.suspect(endpoint, 'it ends connections before it says a word')
      client.destroy()
    })
    client.pipe(upstream)
    upstream.pipe(client)
  }

  /** Who speaks to one that does not serve is better off with another, if there is one. */
  #leave(): void {
    const { backends, title, log } = this.#options
    for (const [over, endpoint] of this.#connecting) if (!backends.serves(endpoint)) over.abort()
    let left = 0
    let to: string | undefined
    for (const [client, { endpoint, sinceMs }] of this.#connections) {
      const refuge = backends.refuge(endpoint, sinceMs)
      if (refuge === undefined) continue
      to = refuge
      client.destroy()
      left++
    }
    if (left > 0) log.warn({ connections: left, to }, `going over to another ${title}`)
  }
}
