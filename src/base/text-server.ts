import { once } from 'node:events'
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ConnectionLimit } from './connection-limit.ts'
import { AppError, describeError } from './errors.ts'
import type { Logger } from './logger.ts'
import { RareLog } from './rare-log.ts'

const plainText = 'text/plain; charset=utf-8'
/** Of metrics, in Prometheus' text format. */
export const metricsType = 'text/plain; version=0.0.4; charset=utf-8'

/** A request has a line and a few headers, and no body: who takes longer over it, or sends more, wants none of this. */
export const textLimits = {
  maxHeaderSize: 8 * 1024,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 5000,
}
/** Beyond these the oldest is closed: a request is answered at once, so it is idle, or slow to ask. */
const connectionsLimit = 64

export interface Answer {
  readonly status: number
  readonly text: string
  readonly type?: string
}

export interface TextServerOptions {
  /** undefined: there is no such page. */
  readonly answer: (path: string, query: URLSearchParams) => Answer | undefined
  readonly log: Pick<Logger, 'warn' | 'error'>
}

export type Serve = (request: IncomingMessage, response: ServerResponse) => void

/** Serves metrics, and whether all is well, over HTTP: short texts that are made when they are asked for. */
export class TextServer {
  readonly #answer: TextServerOptions['answer']
  readonly #log: RareLog
  #server: Server | undefined

  constructor({ answer, log }: TextServerOptions) {
    this.#answer = answer
    this.#log = new RareLog(log)
  }

  /** Returns the URL. `make` is for one that speaks TLS. */
  async listen(
    { host, port }: { host: string; port: number },
    make?: (serve: Serve, log: RareLog) => Promise<Server>,
  ): Promise<string> {
    const serve: Serve = (request, response) => this.#serve(request, response)
    const server = make === undefined ? createServer(textLimits, serve) : await make(serve, this.#log)
    void new ConnectionLimit(server, { limit: connectionsLimit, onFull: () => {} })
    this.#server = server
    try {
      server.listen({ host, port })
      await once(server, 'listening')
    } catch (thrown) {
      throw new AppError(
        `cannot serve metrics on ${host}:${port}`,
        { code: 'METRICS_LISTEN', remedy: 'Free the address, or name another one with --metrics-address.' },
        { cause: thrown },
      )
    }
    // As when the process has too many files open; the next client may have more luck.
    server.on('error', (error) =>
      this.#log.error({ error: describeError(error) }, 'cannot accept a client of the metrics'),
    )
    const bound = server.address() as AddressInfo
    return `${make === undefined ? 'http' : 'https'}://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
  }

  stop(): void {
    this.#server?.close()
    this.#server?.closeAllConnections()
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { status, text, type = plainText } = this.#tryAnswer(request)
    if (status === 405) response.setHeader('allow', 'GET')
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
    response.end(text)
  }

  #tryAnswer({ method, url = '' }: IncomingMessage): Answer {
    if (method !== 'GET') return { status: 405, text: 'Method Not Allowed\n' }
    try {
      // Not by URL: what a client writes need not be one.
      const [path = '', query] = url.replace(/^https?:\/\/[^/?]*/i, '').split('?', 2)
      return this.#answer(path, new URLSearchParams(query)) ?? { status: 404, text: '404 page not found\n' }
    } catch (thrown) {
      this.#log.error({ url, error: describeError(thrown) }, 'cannot answer a request for metrics')
      return { status: 500, text: 'Internal Server Error\n' }
    }
  }
}
