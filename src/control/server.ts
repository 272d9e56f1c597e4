import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { AppError, describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { ownIdentity } from './identity.ts'
import {
  badRequest,
  type DaemonStatus,
  type ErrorReply,
  type MessageName,
  type Messages,
  parsers,
  routes,
  type StopRequest,
} from './messages.ts'
import { listenAt } from './socket.ts'

/** The bytes of a request's body; its header has a limit of its own. */
const bodyLimit = 64 * 1024
const headerLimit = 8 * 1024

/** Beyond these a connection is closed at once. */
const connectionsLimit = 64

/** For the header and for the whole of a request: they come from this machine. */
const headerTimeoutMs = 5_000
const requestTimeoutMs = 10_000

export interface ControlHandlers {
  status(): DaemonStatus | Promise<DaemonStatus>
  /** Returns once the stop is accepted, not when it is done. May be asked again while it goes on. */
  stop(request: StopRequest): void | Promise<void>
}

/**
 * Serves the daemon's own socket at `path` (mode 0600) until it is disposed of. Its directory is
 * made, if it is missing, for the daemon's user alone. Errors: see listenAt.
 */
export async function serveControl({
  path,
  handlers,
  log,
}: {
  path: string
  handlers: ControlHandlers
  log: Logger
}): Promise<AsyncDisposable> {
  const answers = answersOf(handlers)
  const server = createServer(
    { maxHeaderSize: headerLimit, headersTimeout: headerTimeoutMs, requestTimeout: requestTimeoutMs },
    (request, response) => {
      answer({ request, answers, log }).then(
        (reply) => send(response, reply),
        // The client went away in the middle of its request.
        () => response.destroy(),
      )
    },
  )
  server.maxConnections = connectionsLimit
  const release = await listenAt(server, path)
  // As when the daemon has too many files open; the next client may have more luck.
  server.on('error', (error) => log.error({ error: describeError(error) }, 'cannot accept a client'))
  return {
    async [Symbol.asyncDispose]() {
      release()
      const closed = Promise.withResolvers<void>()
      server.close(() => closed.resolve())
      server.closeAllConnections()
      await closed.promise
    },
  }
}

interface Reply {
  readonly statusCode: number
  readonly body: object
}

type Answers = {
  readonly [Name in MessageName]: (request: Messages[Name]['request']) => Promise<Messages[Name]['reply']>
}

function answersOf(handlers: ControlHandlers): Answers {
  return {
    daemon: async () => ownIdentity(),
    status: async () => handlers.status(),
    async stop(request) {
      await handlers.stop(request)
      return { accepted: true }
    },
  }
}

async function answer({
  request,
  answers,
  log,
}: {
  request: IncomingMessage
  answers: Answers
  log: Logger
}): Promise<Reply> {
  const { method = '', url = '' } = request
  const name = (Object.keys(routes) as MessageName[]).find((candidate) => routes[candidate].path === url)
  if (name === undefined) {
    const paths = Object.values(routes).map(({ path }) => path)
    return refuse(
      404,
      new AppError(`cannot answer ${url}: the paths are ${paths.join(', ')}`, { code: 'NOT_FOUND' }),
    )
  }
  if (method !== routes[name].method) {
    const allowed = routes[name].method
    return refuse(
      405,
      new AppError(`cannot answer ${method} ${url}: its method is ${allowed}`, { code: 'METHOD' }),
    )
  }
  const text = await readText(request)
  if (text === undefined) {
    return refuse(413, badRequest(`its body is longer than ${bodyLimit} bytes`))
  }
  let body: Messages[MessageName]['request']
  try {
    body = parsers[name](parseJson(text))
  } catch (error) {
    return refuse(400, error)
  }
  try {
    // The parser of this very message made the body.
    const reply = await (answers[name] as (body: unknown) => Promise<object>)(body)
    log.debug({ message: name, ...body }, 'answered')
    return { statusCode: name === 'stop' ? 202 : 200, body: reply }
  } catch (error) {
    log.error({ message: name, error: describeError(error) }, 'cannot answer')
    return refuse(500, error)
  }
}

/** undefined: there is more than the limit. The rest is not read. */
async function readText(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > bodyLimit) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseJson(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    throw badRequest('its body is not JSON')
  }
}

function refuse(statusCode: number, thrown: unknown): Reply {
  const { code, remedy } = thrown instanceof AppError ? thrown : { code: 'INTERNAL', remedy: undefined }
  const body: ErrorReply = {
    error: { message: describeError(thrown), code, ...(remedy !== undefined && { remedy }) },
  }
  return { statusCode, body }
}

function send(response: ServerResponse, { statusCode, body }: Reply): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(statusCode, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  })
  response.end(text)
}
