/*
 * What the daemon and its commands say to each other: HTTP/1.1 with JSON over the daemon's Unix
 * socket, so that curl --unix-socket is a client too.
 *
 *    GET  /v1/daemon   -> DaemonIdentity
 *    GET  /v1/status   -> DaemonStatus
 *    POST /v1/stop     StopRequest -> StopReply, once it is accepted
 *
 * What fails answers with an ErrorReply. A new message is a row in the tables here and in server.ts.
 */
import { AppError } from '../base/errors.ts'

export interface DaemonIdentity {
  readonly pid: number
  /** As pid:[4026531836]: where the pid means something. */
  readonly pidNamespace: string
  /** Clock ticks since the machine's boot; with the pid it names one process for good. */
  readonly startTicks: number
}

export interface DaemonStatus {
  readonly role: 'server' | 'agent' | 'kubelet' | 'datastore'
  readonly version: string
  /** ISO 8601 */
  readonly startedAt: string
  /** A role without a Node says nothing of one. */
  readonly nodeName?: string
  readonly nodeReady?: boolean
  readonly state: DaemonState
  /** What is not as it should be, one sentence each; none unless the state is degraded or stopping. */
  readonly problems: readonly string[]
  /** What the cluster has beside its processes: add-ons, archives of images. */
  readonly parts: readonly PartStatus[]
  readonly components: readonly ComponentStatus[]
  /** The unpacked artifacts, the running one first. */
  readonly payloads: readonly PayloadStatus[]
}

/** ready: all components, the Node and every part are; starting: not yet, and in time; degraded: it serves without some of it. */
export type DaemonState = 'starting' | 'ready' | 'degraded' | 'stopping'

export interface PartStatus {
  readonly name: string
  readonly state: 'pending' | 'ready' | 'degraded'
  /** Why it is not ready. */
  readonly message?: string
  /** Proportional set size of its pods on this machine; absent where it has none. */
  readonly memoryBytes?: number
  /** false: the cluster is ready before it is. */
  readonly isAwaited?: boolean
}

export interface PayloadStatus {
  readonly version: string
  readonly dir: string
  readonly sizeBytes: number
  /** previous: the one that ran before; used: pods still run from it; unused: it is removed soon. */
  readonly use: 'running' | 'previous' | 'used' | 'unused'
  /** The file that it came from, where a copy is kept. */
  readonly artifact?: string
}

export interface ComponentStatus {
  readonly name: string
  readonly state: string
  readonly pid?: number
  readonly restarts: number
  /** Since when it is in this state; ISO 8601. */
  readonly since: string
  /** Why it is not ready though it runs, as far as it is known. */
  readonly reason?: string
  readonly needs?: readonly string[]
  readonly lastFailure?: ComponentFailure
  /** Proportional set size; null: no process. */
  readonly memoryBytes: number | null
  /** Of the last minute, in thousandths of a core; null: no process. */
  readonly cpuMillicores: number | null
}

interface ComponentFailure {
  /** ISO 8601 */
  readonly at: string
  readonly message: string
  readonly exitCode?: number
  readonly signal?: string
  readonly lastLines: readonly string[]
}

export interface StopRequest {
  /** Whether the pods are ended, too. */
  readonly pods: boolean
}

interface StopReply {
  readonly accepted: true
}

export interface ErrorReply {
  readonly error: { readonly message: string; readonly code: string; readonly remedy?: string }
}

interface Message<Request, Reply> {
  readonly request: Request
  readonly reply: Reply
}

/** undefined: the message has no body. */
export interface Messages {
  daemon: Message<undefined, DaemonIdentity>
  status: Message<undefined, DaemonStatus>
  stop: Message<StopRequest, StopReply>
}

export type MessageName = keyof Messages

export const routes: { readonly [Name in MessageName]: { method: 'GET' | 'POST'; path: string } } = {
  daemon: { method: 'GET', path: '/v1/daemon' },
  status: { method: 'GET', path: '/v1/status' },
  stop: { method: 'POST', path: '/v1/stop' },
}

/** Reads the body of each message; throws BAD_REQUEST with the key, the value and what is allowed. */
export const parsers: { readonly [Name in MessageName]: (body: unknown) => Messages[Name]['request'] } = {
  daemon: () => undefined,
  status: () => undefined,
  stop: (body) => {
    const { pods, ...unknown } = readObject(body)
    for (const key of Object.keys(unknown)) throw badRequest(`the key ${JSON.stringify(key)} is unknown`)
    if (typeof pods !== 'boolean') {
      throw badRequest(`"pods" is ${JSON.stringify(pods) ?? 'missing'}, not true or false`)
    }
    return { pods }
  },
}

export function badRequest(reason: string): AppError {
  return new AppError(`cannot read the request: ${reason}`, { code: 'BAD_REQUEST' })
}

function readObject(body: unknown): Record<string, unknown> {
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return { ...body }
  throw badRequest('its body is not a JSON object')
}
