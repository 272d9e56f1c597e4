import http from 'node:http'
import https from 'node:https'
import { Readable } from 'node:stream'
import { checkServerIdentity, createSecureContext, type PeerCertificate } from 'node:tls'
import { AppError, errorCode } from './errors.ts'
import { TimeLimit } from './time-limit.ts'

/** The largest answer that is read; a Node object has some 10 kB, a table of them less than this. */
const defaultMaxBytes = 4 << 20
const defaultTimeoutMs = 10_000

/** What a client shows and trusts, PEM. */
export interface TlsIdentity {
  /** Without it the system's authorities are trusted. */
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  /** The name or address that the server's certificate must have, where it is not that of the URL. */
  readonly checkedAs?: string
  /** Whoever answers is taken for the server: what he says is checked in another way. */
  readonly isUnchecked?: boolean
}

export interface HttpRequest {
  /** http://... or, with TLS, https://... */
  readonly url: string
  /** A Unix socket, which is spoken to in place of the URL's host. */
  readonly socketPath?: string
  readonly method?: 'GET' | 'PATCH' | 'PUT' | 'POST' | 'DELETE'
  readonly headers?: Readonly<Record<string, string>>
  /** A stream is read once, as fast as it is taken. */
  readonly body?: string | Readable
  readonly tls?: TlsIdentity
  readonly connections?: Connections
  readonly signal?: AbortSignal
  /** For the whole answer; of a stream for its head, and for each of its parts. Default: 10 s. */
  readonly timeoutMs?: number
  /** Of the answer's body. Default: 4 MiB. */
  readonly maxBytes?: number
}

export interface HttpResponse {
  readonly status: number
  readonly body: string
}

interface HttpStream {
  readonly status: number
  /** To be read to its end, or left by a `break`. */
  readonly body: AsyncIterable<Buffer>
}

/**
 * One request over TCP, TLS or a Unix socket. Every status is an answer. Rejects with the reason of `signal`;
 * with TIME_LIMIT or HTTP_SIZE, which name the limit; else with the code of what was in the way (ECONNREFUSED).
 * All messages name the URL. The resident daemon uses this instead of @kubernetes/client-node, whose
 * import costs 0.3 s and 85 MB.
 */
export async function request(asked: HttpRequest): Promise<HttpResponse> {
  using limit = limitOf(asked)
  try {
    const answer = await send(asked, limit)
    const parts: Buffer[] = []
    for await (const part of partsOf(asked, answer)) parts.push(part)
    return { status: answer.statusCode ?? 0, body: Buffer.concat(parts).toString() }
  } catch (cause) {
    throw reasonOf(asked, limit, cause)
  }
}

/** As `request`, for answers that are taken part by part; resolves with their head. */
export async function requestStream(asked: HttpRequest): Promise<HttpStream> {
  const limit = limitOf(asked)
  try {
    const answer = await send(asked, limit)
    return { status: answer.statusCode ?? 0, body: streamOf(asked, answer, limit) }
  } catch (cause) {
    limit[Symbol.dispose]()
    throw reasonOf(asked, limit, cause)
  }
}

/** By what they show and trust, the last ones: to read certificates costs more than a request. */
const secured = new Map<string, Secured>()
const securedLimit = 8

interface Secured {
  /** What each connection is made with. */
  readonly options: https.AgentOptions
  /** Its connections are not kept, but a server that knows the session asks for less. */
  readonly agent: https.Agent
}

function securedBy(tls: TlsIdentity = {}): Secured {
  const key = JSON.stringify([tls.ca, tls.cert, tls.key, tls.checkedAs, tls.isUnchecked])
  const found = secured.get(key) ?? secure(tls)
  secured.delete(key)
  secured.set(key, found)
  const [oldest] = secured.keys()
  if (secured.size > securedLimit && oldest !== undefined) secured.delete(oldest)
  return found
}

function secure(tls: TlsIdentity): Secured {
  const secureContext = createSecureContext({ ...secretsOf(tls), minVersion: 'TLSv1.2' })
  const options = { secureContext, ...checksOf(tls) }
  return { options, agent: new https.Agent(options) }
}

function secretsOf({ ca, cert, key }: TlsIdentity): https.AgentOptions {
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) }
}

function checksOf({ checkedAs, isUnchecked = false }: TlsIdentity): https.AgentOptions {
  return {
    ...(isUnchecked && { rejectUnauthorized: false, maxCachedSessions: 0 }),
    ...(checkedAs !== undefined && {
      checkServerIdentity: (_: string, certificate: PeerCertificate) =>
        checkServerIdentity(checkedAs, certificate),
    }),
  }
}

/** Connections to one server that are kept and used again by requests that name them. */
export class Connections implements Disposable {
  readonly agent: http.Agent

  constructor(url: string, tls: TlsIdentity = {}) {
    this.agent = isTls(url)
      ? new https.Agent({ keepAlive: true, ...securedBy(tls).options })
      : new http.Agent({ keepAlive: true })
  }

  [Symbol.dispose](): void {
    this.agent.destroy()
  }
}

function send(asked: HttpRequest, limit: TimeLimit): Promise<http.IncomingMessage> {
  const { url, socketPath, method = 'GET', headers, body, tls, connections } = asked
  const signals = asked.signal === undefined ? [limit.signal] : [limit.signal, asked.signal]
  const options: https.RequestOptions = {
    method,
    signal: AbortSignal.any(signals),
    headers: {
      ...headers,
      // Node tells it by itself for some methods, and not for DELETE, whose body is then taken for another request.
      ...(typeof body === 'string' && { 'content-length': String(Buffer.byteLength(body)) }),
      ...(connections === undefined && { connection: 'close' }),
    },
    agent: connections?.agent ?? (isTls(url) ? securedBy(tls).agent : false),
    ...(socketPath !== undefined && { socketPath }),
  }
  return new Promise((resolve, reject) => {
    const sent = isTls(url) ? https.request(url, options) : http.request(url, options)
    sent.on('error', reject)
    sent.on('response', resolve)
    if (!(body instanceof Readable)) return void sent.end(body)
    // A stream that fails ends the request, which says so; an answer may come before all is sent, and is one.
    body.on('error', (error) => sent.destroy(error))
    sent.on('close', () => body.destroy())
    body.pipe(sent)
  })
}

async function* partsOf(asked: HttpRequest, answer: http.IncomingMessage): AsyncGenerator<Buffer> {
  const { maxBytes = defaultMaxBytes } = asked
  let length = 0
  for await (const part of answer as AsyncIterable<Buffer>) {
    length += part.length
    if (length > maxBytes) {
      throw new AppError(`cannot ${nameOf(asked)}: the answer is longer than ${maxBytes} bytes`, {
        code: 'HTTP_SIZE',
      })
    }
    yield part
  }
}

async function* streamOf(
  asked: HttpRequest,
  answer: http.IncomingMessage,
  limit: TimeLimit,
): AsyncGenerator<Buffer> {
  try {
    for await (const part of partsOf(asked, answer)) {
      // The time that its reader takes is not the server's.
      limit.pause()
      yield part
      limit.begin()
    }
  } catch (cause) {
    throw reasonOf(asked, limit, cause)
  } finally {
    limit[Symbol.dispose]()
  }
}

function limitOf(asked: HttpRequest): TimeLimit {
  return new TimeLimit(nameOf(asked), asked.timeoutMs ?? defaultTimeoutMs)
}

function reasonOf(asked: HttpRequest, limit: TimeLimit, cause: unknown): unknown {
  if (cause instanceof AppError) return cause
  if (asked.signal?.aborted === true) return asked.signal.reason
  if (limit.signal.aborted) return limit.signal.reason
  return new AppError(`cannot ${nameOf(asked)}`, { code: errorCode(cause) ?? 'HTTP_FAILED' }, { cause })
}

function nameOf({ url, socketPath, method = 'GET' }: HttpRequest): string {
  return socketPath === undefined ? `${method} ${url}` : `${method} ${url} at ${socketPath}`
}

function isTls(url: string): boolean {
  return url.startsWith('https:')
}
