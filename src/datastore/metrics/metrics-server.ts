import { once } from 'node:events'
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { AppError } from '../../base/errors.ts'
import { type MetricsSource, renderMetrics } from './metrics.ts'

const plainText = 'text/plain; charset=utf-8'

interface Answer {
  readonly status: number
  readonly text: string
  readonly type?: string
}

/** Serves /metrics, and whether the datastore is well under etcd's paths: server/etcdserver/api/etcdhttp. */
export class MetricsServer {
  readonly #source: MetricsSource
  readonly #server: Server

  constructor(source: MetricsSource) {
    this.#source = source
    this.#server = createServer((request, response) => this.#serve(request, response))
  }

  /** Returns the URL. */
  async listen({ host, port }: { host: string; port: number }): Promise<string> {
    try {
      this.#server.listen({ host, port })
      await once(this.#server, 'listening')
    } catch (thrown) {
      throw new AppError(
        `cannot serve metrics on ${host}:${port}`,
        { code: 'DATASTORE_LISTEN', remedy: 'Free the address, or name another one with --metrics-address.' },
        { cause: thrown },
      )
    }
    const bound = this.#server.address() as AddressInfo
    return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
  }

  stop(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { status, text, type = plainText } = this.#answer(request)
    if (status === 405) response.setHeader('allow', 'GET')
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
    response.end(text)
  }

  #answer({ method, url = '' }: IncomingMessage): Answer {
    if (method !== 'GET') return { status: 405, text: 'Method Not Allowed\n' }
    const { pathname, searchParams } = new URL(url, 'http://localhost')
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
