import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net'

import { AppError, describeError } from '../../base/errors.ts'
import { ConnectionLimit } from '../../base/connection-limit.ts'
import type { Logger } from '../../base/logger.ts'
import { RareLog } from '../../base/rare-log.ts'
import { listenPrivately } from '../../base/unix-socket.ts'
import type { Certificates, TlsFiles } from './certificates.ts'
import type { Methods } from './http2/call.ts'
import { Connection } from './http2/connection.ts'
import { Load } from './http2/load.ts'

/** Where to listen: a Unix socket that only its owner may use, or TCP, for which `port` 0 is any. */
export type ListenAddress =
  | { readonly unixPath: string }
  | { readonly host: string; readonly port: number; readonly tls?: TlsFiles | undefined }

/** How long calls may go on after `stop`. */
const stopGraceMs = 1000
const keepAliveDelayMs = 30_000
/** Of all clients together, also while they shake hands. */
const connectionsLimit = 1000

/** Accepts connections and serves gRPC methods on them. */
export class GrpcServer {
  readonly #methods: Methods
  readonly #maxMessageBytes: number
  readonly #log: RareLog
  readonly #load = new Load()
  readonly #connections = new Set<Connection>()
  #server: Server | undefined
  #limit: ConnectionLimit | undefined
  #unixPath: string | undefined
  #certificates: Certificates | undefined

  constructor(options: { methods: Methods; maxMessageBytes: number; log: Logger }) {
    this.#methods = options.methods
    this.#maxMessageBytes = options.maxMessageBytes
    this.#log = new RareLog(options.log)
  }

  /** Returns the address as clients dial it: unix:///path or http(s)://host:port. */
  async listen(address: ListenAddress): Promise<string> {
    try {
      if ('unixPath' in address) return await this.#listenUnix(address.unixPath)
      return await this.#listenTcp(address)
    } catch (thrown) {
      if (thrown instanceof AppError) throw thrown
      const where = 'unixPath' in address ? address.unixPath : `${address.host}:${address.port}`
      throw new AppError(
        `cannot listen on ${where}`,
        { code: 'DATASTORE_LISTEN', address: where, remedy: 'Free the address, or name another one.' },
        { cause: thrown },
      )
    }
  }

  /** What clients are shown now; nothing without TLS. */
  get certificates(): Certificates | undefined {
    return this.#certificates
  }

  /** The address and port, which the kernel may have chosen; nothing for a Unix socket. */
  get bound(): AddressInfo | undefined {
    const bound = this.#server?.address()
    return typeof bound === 'object' && bound !== null ? bound : undefined
  }

  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    const closed = once(server, 'close')
    server.close()
    if (this.#unixPath !== undefined) rmSync(this.#unixPath, { force: true })
    for (const connection of this.#connections) connection.close()
    const timer = setTimeout(() => {
      for (const socket of this.#limit?.sockets ?? []) socket.destroy()
    }, stopGraceMs)
    await closed
    clearTimeout(timer)
  }

  async #listenUnix(path: string): Promise<string> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket))
    await listenPrivately(server, path)
    this.#watch(server)
    this.#unixPath = path
    return `unix://${path}`
  }

  async #listenTcp({ host, port, tls }: Exclude<ListenAddress, { unixPath: string }>): Promise<string> {
    const accept = (socket: Socket): void => this.#accept(socket)
    const server =
      tls === undefined ? createServer({ noDelay: true }, accept) : await this.#tlsServer(tls, accept)
    server.listen({ host, port })
    await once(server, 'listening')
    this.#watch(server)
    const bound = server.address() as AddressInfo
    const name = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address
    return `${tls === undefined ? 'http' : 'https'}://${name}:${bound.port}`
  }

  /** TLS is loaded where it is used: it takes as long as the rest of a start. */
  async #tlsServer(files: TlsFiles, accept: (socket: Socket) => void): Promise<Server> {
    const [tls, { Certificates: Loaded }] = await Promise.all([
      import('node:tls'),
      import('./certificates.ts'),
    ])
    const certificates = new Loaded(files, this.#log)
    const options = { ...certificates.options, ALPNProtocols: ['h2'], noDelay: true }
    const server = tls.createServer(options, accept)
    certificates.follow(server)
    this.#certificates = certificates
    return server
  }

  #watch(server: Server): void {
    this.#server = server
    this.#limit = new ConnectionLimit(server, {
      limit: connectionsLimit,
      onFull: () =>
        this.#log.warn({ limit: connectionsLimit }, 'turning a client away: there are too many connections'),
    })
    // As when the process has too many files open; the next client may have more luck.
    server.on('error', (error) => this.#log.error({ error: describeError(error) }, 'cannot accept a client'))
    server.on('tlsClientError', (error: Error, socket: Socket) =>
      this.#log.warn(
        { client: socket.remoteAddress, error: error.message },
        'turning a client away: its TLS handshake failed',
      ),
    )
  }

  #accept(socket: Socket): void {
    socket.setKeepAlive(true, keepAliveDelayMs)
    const connection = new Connection(socket, {
      methods: this.#methods,
      maxMessageBytes: this.#maxMessageBytes,
      log: this.#log,
      load: this.#load,
      onPreface: () => this.#limit?.prove(socket),
    })
    this.#connections.add(connection)
    socket.on('close', () => this.#connections.delete(connection))
  }
}
