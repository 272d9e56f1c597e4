import type { Engine } from '../../mvcc/engine.ts'
import type { Lease } from '../../mvcc/lessor.ts'
import {
  type Compare,
  type RangeRequest,
  compareResults,
  compareTargets,
  sortOrders,
  sortTargets,
} from '../../mvcc/requests.ts'
import { type Version, noBytes } from '../../mvcc/version.ts'
import type { WatchSink, Watcher } from '../../mvcc/watch-hub.ts'
import { type EtcdErrorName, etcdError, etcdMessage, toStatus, withEtcdErrors } from '../etcd-errors.ts'
import type { Call, Method } from '../http2/call.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { type ServiceContext, failAfterCommit, unary } from '../service.ts'
import { StatusError, codes } from '../status.ts'

/**
 * What locks and elections share. etcd serves both with its own client (client/v3/concurrency): one key
 * for each contender below the name, tied to its lease; whoever's key is the oldest has it.
 */

/** etcd: client/v3/concurrency/session.go, defaultSessionTTL. */
const sessionTtlSeconds = 60

/** An error as it comes out of etcd's client: with its words, but without its code. */
export function clientError(name: EtcdErrorName): StatusError {
  return new StatusError(codes.unknown, etcdMessage(name))
}

/**
 * A method whose request is read first, and whose errors come out of etcd's client, when what they rest on (another
 * leader, a lease that is gone) is on disk.
 */
export function clientUnary<Request>(
  context: ServiceContext,
  read: (reader: MessageReader) => Request,
  handle: (request: Request, call: Call) => void,
): Method {
  return unary((reader, call) => {
    const request = read(reader)
    try {
      withEtcdErrors(() => handle(request, call))
    } catch (thrown) {
      if (!(thrown instanceof StatusError)) throw thrown
      const error = new StatusError(codes.unknown, thrown.message)
      failAfterCommit(context, call, error, clientError('noSpace'))
    }
  })
}

/** The lease of a contender: a new one for an id of 0, else the one given, which is renewed. */
export function sessionLease(engine: Engine, id: bigint): bigint {
  const lease: Lease | undefined =
    id === 0n ? engine.grantLease({ id, ttlSeconds: sessionTtlSeconds }) : engine.renewLease(id)
  if (lease === undefined) throw etcdError('leaseNotFound')
  return lease.id
}

/** The range of the keys below a name, which ends in "/". */
export function below(prefix: string): { key: string; end: string } {
  return { key: prefix, end: `${prefix.slice(0, -1)}0` }
}

export function contenderKey(name: string, lease: bigint): string {
  return `${name}/${lease.toString(16)}`
}

/** "The key has this create revision"; 0 says that it does not exist. */
export function wasCreatedAt(key: string, revision: number): Compare {
  return {
    key,
    end: '',
    target: compareTargets.create,
    result: compareResults.equal,
    number: revision,
    lease: 0n,
    value: noBytes,
  }
}

export function rangeOf(
  range: { key: string; end: string },
  options: Partial<RangeRequest> = {},
): RangeRequest {
  return {
    kind: 'range',
    limit: 0,
    revision: 0,
    sortOrder: sortOrders.none,
    sortTarget: sortTargets.key,
    keysOnly: false,
    countOnly: false,
    minModRevision: 0,
    maxModRevision: 0,
    minCreateRevision: 0,
    maxCreateRevision: 0,
    needsCount: false,
    ...range,
    ...options,
  }
}

/** The oldest key below a prefix: etcd's WithFirstCreate. */
export function oldestBelow(prefix: string): RangeRequest {
  return rangeOf(below(prefix), { limit: 1, sortOrder: sortOrders.ascend, sortTarget: sortTargets.create })
}

/** The newest key below a prefix that is not newer than a revision: etcd's WithLastCreate. */
function newestBelow(prefix: string, maxCreateRevision: number): RangeRequest {
  return rangeOf(below(prefix), {
    limit: 1,
    sortOrder: sortOrders.descend,
    sortTarget: sortTargets.create,
    maxCreateRevision,
  })
}

/** Calls `event` for each event of a range until the call ends or the returned function is called. */
export function watchFor(
  { engine, call }: { engine: Engine; call: Call },
  range: { key: string; end: string; startRevision: number },
  event: (version: Version, revision: number) => void,
): () => void {
  if (engine.hub.isFull) throw etcdError('tooManyRequests')
  const sink: WatchSink = {
    isFull: false,
    events: (watcher, versions, revision) => {
      for (const version of versions) if (!watcher.isRemoved) event(version, revision)
      return versions.length
    },
    compacted: () => call.fail(clientError('compacted')),
    failed: (_watcher, thrown) => call.fail(toStatus(thrown)),
  }
  const request = { ...range, id: 0n, ignoresPuts: false, ignoresDeletes: false }
  const watcher: Watcher = engine.hub.add(request, sink)
  return () => engine.hub.remove(watcher)
}

/** Calls `done` once all keys below a prefix that are not newer than a revision have been deleted. */
export class DeletionWait {
  readonly #engine: Engine
  readonly #call: Call
  readonly #prefix: string
  readonly #maxCreateRevision: number
  readonly #done: () => void
  #stopWatching: (() => void) | undefined

  constructor(options: {
    engine: Engine
    call: Call
    prefix: string
    maxCreateRevision: number
    done: () => void
  }) {
    this.#engine = options.engine
    this.#call = options.call
    this.#prefix = options.prefix
    this.#maxCreateRevision = options.maxCreateRevision
    this.#done = options.done
  }

  start(): void {
    const { versions, revision } = this.#engine.range(newestBelow(this.#prefix, this.#maxCreateRevision))
    const [last] = versions
    if (last === undefined) return this.#done()
    const range = { key: last.key, end: '', startRevision: revision + 1 }
    this.#stopWatching = watchFor({ engine: this.#engine, call: this.#call }, range, (version) => {
      if (!version.isTombstone) return
      this.stop()
      this.start()
    })
  }

  stop(): void {
    this.#stopWatching?.()
    this.#stopWatching = undefined
  }
}
