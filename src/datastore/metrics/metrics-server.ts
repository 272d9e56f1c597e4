import type { Server } from 'node:http'
import type { Logger } from '../../base/logger.ts'
import type { RareLog } from '../../base/rare-log.ts'
import { type Answer, metricsType, type Serve, textLimits, TextServer } from '../../base/text-server.ts'
import type { TlsFiles } from '../grpc/certificates.ts'
import type { MetricsAddress } from '../settings.ts'
import { type MetricsSource, renderMetrics } from './metrics.ts'

/** Serves /metrics, and whether the datastore is well under etcd's paths: server/etcdserver/api/etcdhttp. */
export class MetricsServer {
  readonly #server: TextServer

  constructor({ source, log }: { source: MetricsSource; log: Logger }) {
    this.#server = new TextServer({ answer: (path, query) => answer(source, path, query), log })
  }

  /** Returns the URL. */
  listen({ host, port, tls }: MetricsAddress): Promise<string> {
    const make = tls && ((serve: Serve, log: RareLog) => tlsServer(tls, { serve, log }))
    return this.#server.listen({ host, port }, make)
  }

  stop(): void {
    this.#server.stop()
  }
}

async function tlsServer(files: TlsFiles, { serve, log }: { serve: Serve; log: RareLog }): Promise<Server> {
  const [https, { Certificates }] = await Promise.all([
    import('node:https'),
    import('../grpc/certificates.ts'),
  ])
  const certificates = new Certificates(files, log)
  const server = https.createServer({ ...certificates.options, ...textLimits }, serve)
  certificates.follow(server)
  return server
}

function answer(source: MetricsSource, path: string, query: URLSearchParams): Answer | undefined {
  switch (path) {
    case '/metrics':
      return { status: 200, text: renderMetrics(source), type: metricsType }
    case '/health':
      return health(source, query.getAll('exclude'))
    case '/livez':
    case '/readyz':
      return { status: 200, text: 'ok\n' }
    default:
      return undefined
  }
}

/** It answers, so it reads; an alarm is what can be wrong. */
function health({ engine }: MetricsSource, excluded: readonly string[]): Answer {
  if (engine.hasNoSpace && !excluded.includes('NOSPACE')) {
    return { status: 503, text: `${JSON.stringify({ health: 'false', reason: 'ALARM NOSPACE' })}\n` }
  }
  return { status: 200, text: JSON.stringify({ health: 'true', reason: '' }) }
}
