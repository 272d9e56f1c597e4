import { once } from 'node:events'
import {
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  createServer,
} from 'node:http'
import type { AddressInfo } from 'node:net'

import { AppError, describeError } from '../../base/errors.ts'
import { ConnectionLimit } from '../../base/connection-limit.ts'
import type { Logger } from '../../base/logger.ts'
import { RareLog } from '../../base/rare-log.ts'
import type { TlsFiles } from '../grpc/certificates.ts'
import type { MetricsAddress } from '../settings.ts'
import { type MetricsSource, renderMetrics } from './metrics.ts'

const plainText = 'text/plain; charset=utf-8'

/** A request has a line and a few headers, and no body: who takes longer over it, or sends more, wants none of this. */
const limits = {
  maxHeaderSize: 8 * 1024,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 5000,
}
/** Beyond these the oldest is closed: a request is answered at once, so it is idle, or slow to ask. */
const connectionsLimit = 64

interface Answer {
  readonly status: number
  readonly text: string
  readonly type?: string
}

/** Serves /metrics, and whether the datastore is well under etcd's paths: server/etcdserver/api/etcdhttp. */
export class MetricsServer {
  readonly #source: MetricsSource
  readonly #log: RareLog
  #server: Server | undefined

  constructor({ source, log }: { source: MetricsSource; log: Logger }) {
    this.#source = source
    this.#log = new RareLog(log)
  }

  /** Returns the URL. */
  async listen({ host, port, tls }: MetricsAddress): Promise<string> {
    const serve = (request: IncomingMessage, response: ServerResponse): void => this.#serve(request, response)
    const server = tls === undefined ? createServer(limits, serve) : await this.#tlsServer(tls, serve)
    void new ConnectionLimit(server, { limit: connectionsLimit, onFull: () => {} })
    this.#server = server
    try {
      server.listen({ host, port })
      await once(server, 'listening')
    } catch (thrown) {
      throw new AppError(
        `cannot serve metrics on ${host}:${port}`,
        { code: 'DATASTORE_LISTEN', remedy: 'Free the address, or name another one with --metrics-address.' },
        { cause: thrown },
      )
    }
    // As when the process has too many files open; the next client may have more luck.
    server.on('error', (error) =>
      this.#log.error({ error: describeError(error) }, 'cannot accept a client of the metrics'),
    )
    const bound = server.address() as AddressInfo
    return `${tls === undefined ? 'http' : 'https'}://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
  }

  stop(): void {
    this.#server?.close()
    this.#server?.closeAllConnections()
  }

  async #tlsServer(files: TlsFiles, serve: RequestListener): Promise<Server> {
    const [https, { Certificates }] = await Promise.all([
      import('node:https'),
      import('../grpc/certificates.ts'),
    ])
    const certificates = new Certificates(files, this.#log)
    const server = https.createServer({ ...certificates.options, ...limits }, serve)
    certificates.follow(server)
    return server
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { status, text, type = plainText } = this.#tryAnswer(request)
    if (status === 405) response.setHeader('allow', 'GET')
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
    response.end(text)
  }

  #tryAnswer(request: IncomingMessage): Answer {
    try {
      return this.#answer(request)
    } catch (thrown) {
      this.#log.error(
        { url: request.url, error: describeError(thrown) },
        'cannot answer a request for metrics',
      )
      return { status: 500, text: 'Internal Server Error\n' }
    }
  }

  #answer({ method, url = '' }: IncomingMessage): Answer {
    if (method !== 'GET') return { status: 405, text: 'Method Not Allowed\n' }
    // Not by URL: what a client writes need not be one.
    const [pathname = '', query] = url.replace(/^https?:\/\/[^/?]*/i, '').split('?', 2)
    const searchParams = new URLSearchParams(query)
    switch (pathname) {
      case '/metrics':
        return {
          status: 200,
          text: renderMetrics(this.#source),
          type: 'text/plain; version=0.0.4; charset=utf-8',
        }
      case '/health':
        return this.#health(searchParams.getAll('exclude'))
      case '/livez':
      case '/readyz':
        return { status: 200, text: 'ok\n' }
      default:
        return { status: 404, text: '404 page not found\n' }
    }
  }

  /** It answers, so it reads; an alarm is what can be wrong. */
  #health(excluded: readonly string[]): Answer {
    if (this.#source.engine.hasNoSpace && !excluded.includes('NOSPACE')) {
      return { status: 503, text: `${JSON.stringify({ health: 'false', reason: 'ALARM NOSPACE' })}\n` }
    }
    return { status: 200, text: JSON.stringify({ health: 'true', reason: '' }) }
  }
}
