import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode } from '../base/errors.ts'
import { type ApiAccess, openApi } from './client.ts'

const shortestPauseMs = 500
const usualLongestPauseMs = 30_000
/** Of failures one after the other: whoever starts an API server anew is not told that it is away. */
const toldFrom = 5

/** How the objects of a kind are asked for. */
export interface WatchAccess {
  readonly access: ApiAccess
  /** Told why they cannot be watched, and with undefined that they are. */
  readonly onTrouble: (error: unknown) => void
  readonly signal: AbortSignal
  /** What differs from half a second and half a minute: after which a watch that has ended is begun anew, at first and when nothing has come. */
  readonly pauseMs?: number
  readonly longestPauseMs?: number
}

export interface ObjectWatchOptions<Facts> extends WatchAccess {
  /** /api/v1/nodes, perhaps with a selector of fields as its query. */
  readonly path: string
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

/** As `watchObjects`, for who wants to know all of them whenever what is kept of one has changed. What else happens to them nobody hears. */
export function keepObjects<Facts>({
  onChange,
  ...options
}: Omit<ObjectWatchOptions<Facts>, 'onAll' | 'onOne'> & {
  readonly onChange: (all: ReadonlyMap<string, Facts>) => void
}): Promise<void> {
  let kept = new Map<string, Facts>()
  return watchObjects<Facts>({
    ...options,
    onAll(all) {
      kept = all
      onChange(kept)
    },
    onOne(key, facts) {
      if (JSON.stringify(kept.get(key)) === JSON.stringify(facts)) return
      if (facts === undefined) kept.delete(key)
      else kept.set(key, facts)
      onChange(kept)
    },
  })
}

/** Watches all objects of a kind until the signal fires. It keeps none of them. */
export async function watchObjects<Facts>(options: ObjectWatchOptions<Facts>): Promise<void> {
  const { access, path, signal, onAll, onOne, onTrouble, factsOf } = options
  const { pauseMs: firstPauseMs = shortestPauseMs, longestPauseMs = usualLongestPauseMs } = options
  let pauseMs = firstPauseMs
  let version: string | undefined
  let failures = 0
  while (!signal.aborted) {
    try {
      using api = await openApi(access, signal)
      if (version === undefined) {
        const all = new Map<string, Facts>()
        version = await api.eachPage<WatchedObject>(path, (page) => {
          for (const object of page) {
            const found = factsOf(object)
            if (found !== undefined) all.set(...found)
          }
        })
        onAll(all)
      }
      if (failures >= toldFrom) onTrouble(undefined)
      failures = 0
      for await (const { type, object } of api.watch<WatchedObject>(path, version)) {
        pauseMs = firstPauseMs
        if (type === 'ERROR') {
          version = undefined
          break
        }
        version = object.metadata?.resourceVersion ?? version
        const found = type === 'BOOKMARK' ? undefined : factsOf(object)
        if (found !== undefined) onOne(found[0], type === 'DELETED' ? undefined : found[1])
      }
    } catch (error) {
      if (signal.aborted) return
      // A list that begins anew tells whether the server is well.
      if (['API_REFUSED', 'API_EVENT'].includes(errorCode(error) ?? '')) version = undefined
      if (!isEnd(error) && ++failures >= toldFrom) onTrouble(error)
    }
    await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
  }
}

/** The API server ends each watch after a while, and whoever is silent for too long is asked anew. */
function isEnd(error: unknown): boolean {
  return ['TIME_LIMIT', 'HTTP_SIZE', 'ECONNRESET'].includes(errorCode(error) ?? '')
}
