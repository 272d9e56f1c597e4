import { everyKeyEnd } from '../../mvcc/key-range.ts'
import type { Version } from '../../mvcc/version.ts'
import type { WatchSink, Watcher } from '../../mvcc/watch-hub.ts'
import { etcdMessage, toStatus } from '../etcd-errors.ts'
import type { Call } from '../http2/call.ts'
import {
  EventEncoder,
  type WatchCreateRequest,
  readWatchRequest,
  watchResponseTags,
} from '../messages/watch.ts'
import type { MessageWriter } from '../protobuf/message-writer.ts'
import { type Service, type ServiceContext, freshWriter, streaming } from '../service.ts'

/** A stream whose client reads slower than this fills gets its events from the history later. */
const queueLimitBytes = 256 * 1024
/** Catching up, a response ends with the revision in which it reaches this size. */
const responseTargetBytes = 512 * 1024
/** etcd: config.ServerConfig, MaxRequestBytesWithOverhead. */
const grpcOverheadBytes = 512 * 1024

/** The id of what concerns no watcher, or all of them: client/v3/watch.go, InvalidWatchID. */
const noWatcherId = -1n
/** In a request: any id will do. */
const automaticId = 0n

/** etcdserverpb.Watch */
export function watchService(context: ServiceContext): Service {
  const encoder = new EventEncoder(context.engine.store.valueOf)
  const watch = streaming((call) => {
    const watchCall = new WatchCall(context, call, encoder)
    call.onCancel = () => watchCall.close()
    call.onDrain = () => watchCall.drained()
    return {
      message: (reader) => watchCall.request(readWatchRequest(reader)),
      // A client that has sent its last request still wants its events.
      halfClose: () => undefined,
    }
  })
  return [['/etcdserverpb.Watch/Watch', watch]]
}

/** One client's stream of watchers. etcd: api/v3rpc/watch.go, serverWatchStream. */
class WatchCall {
  readonly #context: ServiceContext
  readonly #call: Call
  readonly #encoder: EventEncoder
  readonly #subscriptions = new Map<bigint, Subscription>()
  #nextId = 0n
  #progressTimer: NodeJS.Timeout | undefined
  /** In this turn of the event loop. */
  #progressAsked: 'not' | 'once' | 'again' = 'not'

  constructor(context: ServiceContext, call: Call, encoder: EventEncoder) {
    this.#context = context
    this.#call = call
    this.#encoder = encoder
  }

  request(request: ReturnType<typeof readWatchRequest>): void {
    switch (request?.kind) {
      case 'create':
        return this.#create(request)
      case 'cancel':
        return this.#cancel(request.id)
      case 'progress':
        return this.#progress()
      case undefined:
        // etcd ignores what it does not know rather than ending the stream.
        return
    }
  }

  close(): void {
    clearInterval(this.#progressTimer)
    for (const { watcher } of this.#subscriptions.values()) this.#context.engine.hub.remove(watcher)
    this.#subscriptions.clear()
  }

  drained(): void {
    for (const { watcher } of this.#subscriptions.values()) this.#context.engine.hub.resume(watcher)
  }

  get isFull(): boolean {
    return this.#call.queuedBytes >= queueLimitBytes
  }

  encode(version: Version, withPrevious: boolean): Buffer {
    return this.#encoder.encode(version, withPrevious)
  }

  /** Sends a response; `revision` 0 leaves its header without one. */
  send(revision: number, id: bigint, write?: (writer: MessageWriter) => void): void {
    const writer = freshWriter()
    this.#context.header.write(writer, revision)
    writer.bigint(watchResponseTags.watchId, id)
    write?.(writer)
    this.#call.send(writer)
  }

  get fragmentBytes(): number {
    return this.#context.options.maxRequestBytes + grpcOverheadBytes
  }

  forget(id: bigint): void {
    this.#subscriptions.delete(id)
  }

  /** Ends the whole call: its client begins again where the last events were. */
  fail(thrown: unknown): void {
    this.close()
    this.#call.fail(toStatus(thrown))
  }

  get #revision(): number {
    return this.#context.engine.store.revision
  }

  #create(request: WatchCreateRequest): void {
    if (request.startRevision < 0) return this.#refuse(etcdMessage('compacted'))
    const key = request.key === '' ? '\0' : request.key
    const isEmpty = request.end !== '' && request.end !== everyKeyEnd && key >= request.end
    if (isEmpty) return this.#refuse('mvcc: watcher range is empty')
    if (request.id !== automaticId && this.#subscriptions.has(request.id)) {
      return this.#refuse('mvcc: duplicate watch ID provided on the WatchStream')
    }
    if (this.#context.engine.hub.isFull) return this.#refuse(etcdMessage('tooManyRequests'))
    const id = request.id === automaticId ? this.#freeId() : request.id
    this.send(this.#revision, id, (writer) => writer.bool(watchResponseTags.created, true))
    const subscription = new Subscription(this, { ...request, id })
    subscription.watcher = this.#context.engine.hub.add({ ...request, key, id }, subscription)
    this.#subscriptions.set(id, subscription)
    if (request.progressNotify) this.#startProgress()
  }

  #refuse(reason: string): void {
    this.send(this.#revision, noWatcherId, (writer) => {
      writer.bool(watchResponseTags.created, true)
      writer.bool(watchResponseTags.canceled, true)
      writer.text(watchResponseTags.cancelReason, reason)
    })
  }

  #freeId(): bigint {
    while (this.#subscriptions.has(this.#nextId)) this.#nextId++
    return this.#nextId++
  }

  #cancel(id: bigint): void {
    const subscription = this.#subscriptions.get(id)
    if (subscription === undefined) return
    this.#context.engine.hub.remove(subscription.watcher)
    this.#subscriptions.delete(id)
    this.send(this.#revision, id, (writer) => writer.bool(watchResponseTags.canceled, true))
  }

  /** Each request looks at all watchers: those of one turn are answered by its first and its end. */
  #progress(): void {
    if (this.#progressAsked !== 'not') {
      this.#progressAsked = 'again'
      return
    }
    this.#progressAsked = 'once'
    setImmediate(() => {
      const isAskedAgain = this.#progressAsked === 'again'
      this.#progressAsked = 'not'
      if (isAskedAgain) this.#tellProgress()
    })
    this.#tellProgress()
  }

  /** One reply for all watchers, if none of them has anything left to be told. */
  #tellProgress(): void {
    if (this.#subscriptions.size === 0) return
    for (const { watcher } of this.#subscriptions.values()) {
      if (!this.#context.engine.hub.isSynced(watcher)) return
    }
    this.send(this.#revision, noWatcherId)
  }

  /** With a jitter of a tenth, so that streams that began together are not served together for ever. */
  #startProgress(): void {
    if (this.#progressTimer !== undefined) return
    const intervalMs = this.#context.options.progressNotifyIntervalMs
    const jitteredMs = intervalMs + Math.random() * (intervalMs / 10)
    this.#progressTimer = setInterval(() => this.#notifyProgress(), jitteredMs).unref()
  }

  #notifyProgress(): void {
    for (const subscription of this.#subscriptions.values()) {
      if (!subscription.request.progressNotify) continue
      if (subscription.isIdle && this.#context.engine.hub.isSynced(subscription.watcher)) {
        this.send(this.#revision, subscription.request.id)
      }
      subscription.isIdle = true
    }
  }
}

/** A watcher with what its client wants of it. */
class Subscription implements WatchSink {
  readonly request: WatchCreateRequest
  readonly #call: WatchCall
  #watcher: Watcher | undefined
  /** Nothing was sent since progress was last looked at. */
  isIdle = true

  constructor(call: WatchCall, request: WatchCreateRequest) {
    this.#call = call
    this.request = request
  }

  get watcher(): Watcher {
    return this.#watcher as Watcher
  }

  set watcher(watcher: Watcher) {
    this.#watcher = watcher
  }

  get isFull(): boolean {
    return this.#call.isFull
  }

  events(_watcher: Watcher, versions: readonly Version[], revision: number): number {
    this.isIdle = false
    let taken = 0
    while (taken < versions.length && !(taken > 0 && this.isFull)) {
      const events: Buffer[] = []
      let bytes = 0
      let next = taken
      for (; next < versions.length; next++) {
        const version = versions[next] as Version
        const isNewRevision = next > taken && version.revision !== versions[next - 1]?.revision
        if (isNewRevision && bytes >= responseTargetBytes) break
        const event = this.#call.encode(version, this.request.previousKv)
        bytes += event.length
        events.push(event)
      }
      // What is not the last response must not look as if it were.
      const lastRevision = next === versions.length ? revision : (versions[next - 1] as Version).revision
      this.#sendEvents(lastRevision, events, bytes)
      taken = next
    }
    return taken
  }

  compacted(_watcher: Watcher, compactRevision: number): void {
    this.#call.forget(this.request.id)
    this.#call.send(0, this.request.id, (writer) => {
      writer.bool(watchResponseTags.canceled, true)
      writer.uint(watchResponseTags.compactRevision, compactRevision)
    })
  }

  failed(_watcher: Watcher, thrown: unknown): void {
    this.#call.fail(thrown)
  }

  #sendEvents(revision: number, events: readonly Buffer[], bytes: number): void {
    if (!this.request.fragment || bytes < this.#call.fragmentBytes || events.length < 2) {
      return this.#sendPart(revision, events, false)
    }
    let part: Buffer[] = []
    let partBytes = 0
    for (const event of events) {
      if (part.length > 0 && partBytes + event.length >= this.#call.fragmentBytes) {
        this.#sendPart(revision, part, true)
        part = []
        partBytes = 0
      }
      part.push(event)
      partBytes += event.length
    }
    this.#sendPart(revision, part, false)
  }

  #sendPart(revision: number, events: readonly Buffer[], isFragment: boolean): void {
    this.#call.send(revision, this.request.id, (writer) => {
      writer.bool(watchResponseTags.fragment, isFragment)
      for (const event of events) writer.raw(event)
    })
  }
}
