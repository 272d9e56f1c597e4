import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorCode } from '../base/errors.ts'
import { type HttpResponse, request } from '../base/http.ts'
import { type ErrorReply, type MessageName, type Messages, routes } from './messages.ts'

/** No path of a Unix socket is longer: sun_path of unix(7) without its final zero byte. */
export const socketPathLimit = 107

const replyLimitBytes = 16 * 1024 * 1024

/** A daemon that has too many clients, or ends just now, closes connections: it is asked again. */
const attemptsLimit = 5
const attemptIntervalMs = 100

interface ExchangeOptions<Name extends MessageName> {
  readonly socketPath: string
  readonly message: Name
  readonly body: Messages[Name]['request']
  readonly timeoutMs: number
}

/**
 * One message and its reply. Rejects with DAEMON_NOT_RUNNING when nobody listens, DAEMON_SILENT when
 * there is no answer in time, DAEMON_UNREACHABLE for any other trouble on the way, and with the
 * daemon's own error and code when it refuses.
 */
export async function exchange<Name extends MessageName>(
  options: ExchangeOptions<Name>,
): Promise<Messages[Name]['reply']> {
  if (Buffer.byteLength(options.socketPath) > socketPathLimit) throw pathTooLong(options.socketPath)
  const end = performance.now() + options.timeoutMs
  for (let attempt = 1; ; attempt++) {
    const leftMs = Math.max(1, Math.ceil(end - performance.now()))
    const sent = await send(options, leftMs).then(
      (reply) => ({ reply }),
      (error: unknown) => ({ error }),
    )
    if ('reply' in sent) return readReply(options, sent.reply)
    const code = errorCode(sent.error)
    if (code === 'TIME_LIMIT') throw silent(options)
    const closed = code === 'ECONNRESET' || code === 'EPIPE'
    if (!closed || attempt === attemptsLimit) throw cannotReach(options, sent.error)
    await delay(attemptIntervalMs)
  }
}

function readReply<Name extends MessageName>(
  { socketPath }: ExchangeOptions<Name>,
  { status, body }: HttpResponse,
): Messages[Name]['reply'] {
  let reply: unknown
  try {
    reply = JSON.parse(body)
  } catch (cause) {
    throw cannotUnderstand(socketPath, cause)
  }
  if (typeof reply !== 'object' || reply === null) throw cannotUnderstand(socketPath)
  if (status >= 200 && status < 300) return reply as Messages[Name]['reply']
  const { error } = reply as Partial<ErrorReply>
  if (typeof error?.message !== 'string' || typeof error.code !== 'string') throw cannotUnderstand(socketPath)
  const { message, code, remedy } = error
  throw new AppError(message, { code, ...(typeof remedy === 'string' && { remedy }) })
}

function send<Name extends MessageName>(
  { socketPath, message, body }: ExchangeOptions<Name>,
  timeoutMs: number,
): Promise<HttpResponse> {
  const { method, path } = routes[message]
  return request({
    ...{ url: `http://localhost${path}`, socketPath, method, timeoutMs, maxBytes: replyLimitBytes },
    headers: { 'content-type': 'application/json' },
    body: body === undefined ? '' : JSON.stringify(body),
  })
}

function silent({ socketPath, timeoutMs }: ExchangeOptions<MessageName>): AppError {
  return new AppError(
    `cannot reach the daemon at ${socketPath}: it has not answered within ${timeoutMs} ms`,
    {
      code: 'DAEMON_SILENT',
      remedy: 'It is overloaded or stopped (Ctrl-Z, SIGSTOP): look at it with `ps`.',
    },
  )
}

function cannotReach({ socketPath }: ExchangeOptions<MessageName>, cause: unknown): AppError {
  const prefix = `cannot reach the daemon at ${socketPath}`
  switch (errorCode(cause)) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return new AppError(`${prefix}: it is not running`, {
        code: 'DAEMON_NOT_RUNNING',
        remedy: 'Start it with `systemctl start k8s` or `k8s`, or give the --data-dir that it runs with.',
      })
    case 'EACCES':
    case 'EPERM':
      return new AppError(`${prefix}: permission denied`, {
        code: 'DAEMON_UNREACHABLE',
        remedy: 'Only its own user may: try again as root.',
      })
    default:
      return new AppError(prefix, { code: 'DAEMON_UNREACHABLE' }, { cause })
  }
}

function cannotUnderstand(socketPath: string, cause?: unknown): AppError {
  return new AppError(
    `cannot understand what answers at ${socketPath}`,
    { code: 'DAEMON_UNREACHABLE', remedy: 'See which program listens there: `ss -xlp`.' },
    { cause },
  )
}

export function pathTooLong(socketPath: string): AppError {
  return new AppError(
    `cannot use the socket ${socketPath}: its path is longer than ${socketPathLimit} bytes`,
    {
      code: 'SOCKET_PATH',
      remedy: 'Use a data directory with a shorter path.',
    },
  )
}
