import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { listenPrivately } from '../base/unix-socket.ts'
import type { Members } from './members.ts'

/** For TCP and TLS with a member that serves. */
const connectLimitMs = 5_000
const keepAliveDelayMs = 30_000
/** What a client says before it is answered: in HTTP/2 its preface and its settings. */
const earlyLimitBytes = 64 * 1024
/** kube-apiserver has one for each kind of object. */
const connectionsLimit = 10_000

export interface MemberProxyOptions {
  /** The Unix socket. */
  readonly path: string
  readonly members: Members
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  readonly log: Logger
}

/**
 * A Unix socket in front of the members of an etcd cluster: the bytes of each connection go to one that serves. When it does not any
 * more, while another one does, its connections are ended, and who had them connects anew, to the other. A client that comes while
 * none serves waits: clients of gRPC that were refused take ever longer until they try again.
 */
export class MemberProxy {
  readonly #options: MemberProxyOptions
  readonly #server = createServer({ noDelay: true }, (client) => void this.#serve(client))
  /** The client's end of each connection, with the member behind it. */
  readonly #connections = new Map<Socket, string>()
  readonly #waiting = new Set<Socket>()
  /** Those that are being connected, with what gives it up. */
  readonly #connecting = new Map<AbortController, string>()

  constructor(options: MemberProxyOptions) {
    this.#options = options
    this.#server.maxConnections = connectionsLimit
    this.#server.on('error', (error) =>
      options.log.error({ reason: describeError(error) }, 'cannot accept a client'),
    )
    this.#server.on('drop', () =>
      options.log.warn({ limit: connectionsLimit }, 'turning a client away: there are too many connections'),
    )
    options.members.onChange(() => this.#leave())
  }

  async listen(): Promise<void> {
    await listenPrivately(this.#server, this.#options.path)
  }

  /** How many are connected, or wait. */
  get clients(): number {
    return this.#connections.size + this.#waiting.size
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    rmSync(this.#options.path, { force: true })
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
        const endpoint = await this.#options.members.whenServing(gone.signal)
        const upstream = await this.#connect(endpoint, gone.signal)
        if (upstream === undefined) continue
        if (!this.#options.members.serves(endpoint)) {
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

  /** undefined: it does not take connections, which its members' keeper is told. */
  async #connect(endpoint: string, signal: AbortSignal): Promise<Socket | undefined> {
    const { hostname, port, protocol } = new URL(endpoint)
    const isTls = protocol === 'https:'
    // A URL leaves out the port that its scheme implies.
    const where = {
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port || (isTls ? 443 : 80)),
      noDelay: true,
    }
    let upstream: Socket | undefined
    const over = new AbortController()
    this.#connecting.set(over, endpoint)
    try {
      upstream = isTls
        ? connectTls({ ...where, ...this.#options.tls(), ALPNProtocols: ['h2'] })
        : connect(where)
      upstream.on('error', () => {})
      const limited = AbortSignal.any([signal, over.signal, AbortSignal.timeout(connectLimitMs)])
      await once(upstream, isTls ? 'secureConnect' : 'connect', { signal: limited })
      return upstream
    } catch (error) {
      upstream?.destroy()
      if (!signal.aborted && !over.signal.aborted)
        this.#options.members.suspect(endpoint, describeError(error))
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
    this.#connections.set(client, endpoint)
    client.on('close', () => {
      this.#connections.delete(client)
      upstream.destroy()
    })
    upstream.on('close', () => {
      // With TLS 1.3 one hears only now that our certificate is refused.
      if (upstream.bytesRead === 0 && !client.destroyed)
        this.#options.members.suspect(endpoint, 'it ends connections before it says a word')
      client.destroy()
    })
    client.pipe(upstream)
    upstream.pipe(client)
  }

  /** Who speaks to a member that does not serve is better off with another, if there is one. */
  #leave(): void {
    const { members, log } = this.#options
    for (const [over, endpoint] of this.#connecting) if (!members.serves(endpoint)) over.abort()
    let left = 0
    for (const [client, endpoint] of this.#connections) {
      if (members.refuge(endpoint) === undefined) continue
      client.destroy()
      left++
    }
    if (left > 0) log.warn({ connections: left, to: members.best }, 'going over to another member of etcd')
  }
}
