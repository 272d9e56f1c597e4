import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, errorCode } from '../base/errors.ts'
import { request, requestStream, type TlsIdentity } from '../base/http.ts'

/** Of a Node that lists fifty images, some 20 kB; pods have less. */
const pageItems = 100
const pageLimitBytes = 32 << 20
/** One event, a line. */
const lineLimitBytes = 2 << 20
/** What is read of one watch before the next one goes on where it ended. */
const watchLimitBytes = 1 << 30
/** The API server says each minute how far it is (WatchBookmarks): a connection that is silent for longer is dead. */
const silenceLimitMs = 150_000
const shortestPauseMs = 500
const longestPauseMs = 30_000
/** Of failures one after the other: whoever starts an API server anew is not told that it is away. */
const toldFrom = 5

/** How the objects of a kind are asked for. */
export interface WatchAccess {
  /** https://127.0.0.1:6443 */
  readonly server: string
  readonly identity: () => Promise<TlsIdentity>
  /** Told why they cannot be watched, and with undefined that they are. */
  readonly onTrouble: (reason: string | undefined) => void
  readonly signal: AbortSignal
  /** What differs from half a second: after which a watch that has ended is begun anew. */
  readonly pauseMs?: number
}

export interface ObjectWatchOptions<Facts> extends WatchAccess {
  /** /api/v1/nodes, perhaps with a selector of fields as its query. */
  readonly path: string
  /** "the Nodes" */
  readonly what: string
  /** Of an object, which may say anything, what is kept of it; undefined: it is none. */
  readonly factsOf: (object: WatchedObject) => readonly [key: string, facts: Facts] | undefined
  /** Gets all, at first and whenever too much has happened to be told one by one. */
  readonly onAll: (all: Map<string, Facts>) => void
  /** undefined: it is gone. */
  readonly onOne: (key: string, facts: Facts | undefined) => void
}

export interface WatchedObject {
  readonly metadata?: {
    readonly name?: unknown
    readonly namespace?: unknown
    readonly uid?: unknown
    readonly creationTimestamp?: unknown
    readonly labels?: unknown
    readonly annotations?: unknown
    readonly managedFields?: unknown
    readonly finalizers?: unknown
    readonly resourceVersion?: string
  }
  readonly spec?: unknown
  readonly status?: unknown
}

interface ObjectList {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
  readonly items?: readonly WatchedObject[]
}

interface ObjectEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: WatchedObject
}

/** Watches all objects of a kind until the signal fires. It keeps none of them. */
export async function watchObjects<Facts>(options: ObjectWatchOptions<Facts>): Promise<void> {
  const { signal, onAll, onOne, onTrouble, factsOf, pauseMs: firstPauseMs = shortestPauseMs } = options
  let pauseMs = firstPauseMs
  let version: string | undefined
  let failures = 0
  while (!signal.aborted) {
    try {
      if (version === undefined) {
        const found = await list(options)
        version = found.version
        onAll(found.all)
      }
      if (failures >= toldFrom) onTrouble(undefined)
      failures = 0
      for await (const { type, object } of watch(options, version)) {
        pauseMs = firstPauseMs
        if (type === 'ERROR') {
          // Mostly 410: too much has happened since.
          version = undefined
          break
        }
        version = object.metadata?.resourceVersion ?? version
        const found = type === 'BOOKMARK' ? undefined : factsOf(object)
        if (found !== undefined) onOne(found[0], type === 'DELETED' ? undefined : found[1])
      }
    } catch (error) {
      if (signal.aborted) return
      // A list that began anew tells whether the server is well.
      if (errorCode(error) === 'OBJECT_WATCH') version = undefined
      if (!isEnd(error) && ++failures >= toldFrom) onTrouble(describeError(error))
    }
    await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
  }
}

/** The API server ends each watch after a while, and whoever is silent for too long is asked anew. */
function isEnd(error: unknown): boolean {
  return ['TIME_LIMIT', 'HTTP_SIZE', 'ECONNRESET'].includes(errorCode(error) ?? '')
}

async function list<Facts>(options: ObjectWatchOptions<Facts>) {
  const { identity, signal, factsOf, what } = options
  const all = new Map<string, Facts>()
  for (let from: string | undefined; ; ) {
    const rest = from === undefined ? {} : { continue: from }
    const { status, body } = await request({
      url: urlOf(options, { limit: String(pageItems), ...rest }),
      ...{ tls: await identity(), signal, maxBytes: pageLimitBytes },
    })
    if (status !== 200) throw refusal(what, status)
    const { metadata, items = [] } = JSON.parse(body) as ObjectList
    for (const object of items) {
      const found = factsOf(object)
      if (found !== undefined) all.set(...found)
    }
    if (!metadata?.continue) return { all, version: metadata?.resourceVersion ?? '0' }
    from = metadata.continue
  }
}

async function* watch<Facts>(
  options: ObjectWatchOptions<Facts>,
  resourceVersion: string,
): AsyncGenerator<ObjectEvent> {
  const { identity, signal, what } = options
  const { status, body } = await requestStream({
    url: urlOf(options, { watch: '1', allowWatchBookmarks: 'true', resourceVersion }),
    ...{ tls: await identity(), signal, timeoutMs: silenceLimitMs, maxBytes: watchLimitBytes },
  })
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const part of body) {
    if (status !== 200) throw refusal(what, status)
    let from = 0
    for (let end = part.indexOf(10); end >= 0; end = part.indexOf(10, from)) {
      const line = Buffer.concat([...rest, part.subarray(from, end)]).toString()
      rest = []
      restBytes = 0
      from = end + 1
      if (line !== '') yield JSON.parse(line) as ObjectEvent
    }
    if (from === part.length) continue
    rest.push(part.subarray(from))
    restBytes += part.length - from
    if (restBytes > lineLimitBytes)
      throw Object.assign(new Error(`an event has more than ${lineLimitBytes} bytes`), {
        code: 'OBJECT_WATCH',
      })
  }
  if (status !== 200) throw refusal(what, status)
}

function urlOf(
  { server, path }: { server: string; path: string },
  parameters: Record<string, string>,
): string {
  const joint = path.includes('?') ? '&' : '?'
  return `${server}${path}${joint}${new URLSearchParams(parameters).toString()}`
}

function refusal(what: string, status: number): Error {
  return Object.assign(new Error(`the API server answers ${status} to who asks for ${what}`), {
    code: 'OBJECT_WATCH',
  })
}
