import type { Operation, RangeRequest, RangeResult, TxnRequest } from '../../mvcc/requests.ts'
import { hasFilters, isDefaultOrder } from '../../mvcc/range.ts'
import type { PastResults } from '../../mvcc/transaction.ts'
import { checkDeleteRange, checkPut, checkRange, checkTxn } from '../request-rules.ts'
import { etcdError, toStatus, withEtcdErrors } from '../etcd-errors.ts'
import type { Call, Method } from '../http2/call.ts'
import {
  readCompactionRequest,
  readDeleteRangeRequest,
  readPutRequest,
  readRangeRequest,
  readTxnRequest,
} from '../messages/kv-requests.ts'
import {
  RangeResponseParts,
  heldVersionBytes,
  writeDeleteRangeResponse,
  writeLastRangeChunk,
  writePutResponse,
  writeRangeChunk,
  writeRangeResponse,
  writeTxnResponse,
} from '../messages/kv-responses.ts'
import {
  type Service,
  type ServiceContext,
  failAfterCommit,
  freshWriter,
  replyAfterCommit,
  unary,
  writing,
} from '../service.ts'
import { StatusError, codes } from '../status.ts'

/** etcd: etcdserver/v3_server.go, initialStreamChunkLimit. */
const firstChunkKeys = 10

/** A range of more keys is encoded part by part. */
const partsFromKeys = 100

/** etcdserverpb.KV */
export function kvService(context: ServiceContext): Service {
  const { engine, header, options } = context
  const { valueOf, valuesOf } = engine.store

  /** The parts of a reply are read when the method has returned, which gives errors their codes. */
  const laterValuesOf: typeof valuesOf = (versions) => withEtcdErrors(() => valuesOf(versions))

  const range = unary((reader, call) => {
    const request = readRangeRequest(reader)
    checkRange(request)
    const reply = (result: RangeResult, versionBytes: number): void => {
      if (result.versions.length > partsFromKeys && !result.keysOnly) {
        const release = engine.keepOpen(request, () => call.fail(etcdError('compacted')))
        const parts = { header, result, valuesOf: laterValuesOf, release, versionBytes }
        call.replyInParts(new RangeResponseParts(parts))
      } else {
        call.reply(writeRangeResponse(freshWriter(), { header, result, valuesOf }))
      }
    }
    if (engine.store.isInMemory(request.revision))
      return reply(engine.range(request), heldVersionBytes.inMemory)
    const done = (result: RangeResult): void => reply(result, heldVersionBytes.ofPast)
    engine.past.range(request, { ...waiting(call), done })
  })

  const rangeStream = unary((reader, call) => {
    const request = readRangeRequest(reader)
    checkRange(request)
    checkStreamable(request)
    new RangeStream(context, call, request).run()
  })

  const put = writing(context, (reader, call, requestBytes) => {
    const request = readPutRequest(reader)
    checkPut(request)
    checkSize(requestBytes, options)
    const result = engine.put(request)
    replyAfterCommit(context, call, (writer) => writePutResponse(writer, { header, result, valueOf }))
  })

  const deleteRange = writing(context, (reader, call, requestBytes) => {
    const request = readDeleteRangeRequest(reader)
    checkDeleteRange(request)
    checkSize(requestBytes, options)
    const result = engine.deleteRange(request)
    replyAfterCommit(context, call, (writer) => writeDeleteRangeResponse(writer, { header, result, valueOf }))
  })

  const compact = writing(context, (reader, call) => {
    const { revision, physical } = readCompactionRequest(reader)
    const reply = (): void =>
      replyAfterCommit(context, call, (writer) => header.write(writer, engine.store.revision))
    engine.compact(revision, physical ? reply : undefined)
    if (!physical) reply()
  })

  return [
    ['/etcdserverpb.KV/Range', range],
    ['/etcdserverpb.KV/RangeStream', rangeStream],
    ['/etcdserverpb.KV/Put', put],
    ['/etcdserverpb.KV/DeleteRange', deleteRange],
    ['/etcdserverpb.KV/Txn', txnMethod(context)],
    ['/etcdserverpb.KV/Compact', compact],
  ]
}

/** etcdserverpb.KV, Txn */
function txnMethod(context: ServiceContext): Method {
  const { engine, header, options } = context
  const { valueOf } = engine.store
  return writing(context, (reader, call, requestBytes) => {
    const request = checkTxn(readTxnRequest(reader, options.maxTxnOperations), options.maxTxnOperations)
    if (!isReadOnly(request)) checkSize(requestBytes, options)
    const execute = (checked: TxnRequest, past?: PastResults): void => {
      const result = engine.txn(checked, past)
      replyAfterCommit(context, call, (writer) => writeTxnResponse(writer, { header, result, valueOf }))
    }
    if (!engine.past.isReadBy(request)) return execute(request)
    const kept = withOwnValues(request)
    engine.past.readFor(kept, {
      isWanted: () => call.isOpen,
      done: (past) => execute(kept, past),
      failed: (thrown) => failAfterCommit(context, call, toStatus(thrown), etcdError('noSpace')),
    })
  })
}

function checkSize(requestBytes: number, { maxRequestBytes }: ServiceContext['options']): void {
  if (requestBytes > maxRequestBytes) throw etcdError('requestTooLarge')
}

/** Who waits for what is read of the past. */
function waiting(call: Call): { isWanted: () => boolean; failed: (thrown: unknown) => void } {
  return { isWanted: () => call.isOpen, failed: (thrown) => call.fail(toStatus(thrown)) }
}

/** A transaction that is carried out later: its values are views of what is received meanwhile. */
function withOwnValues({ kind, compares, success, failure }: TxnRequest): TxnRequest {
  const own = <Part extends { readonly value: Uint8Array }>(part: Part): Part => ({
    ...part,
    value: Buffer.from(part.value),
  })
  const ownOf = (operation: Operation): Operation => {
    if (operation.kind === 'put') return own(operation)
    return operation.kind === 'txn' ? withOwnValues(operation) : operation
  }
  return { kind, compares: compares.map(own), success: success.map(ownOf), failure: failure.map(ownOf) }
}

/** etcd proposes no such transaction, and measures what it proposes (etcdserver/txn/txn.go, IsTxnReadonly). */
function isReadOnly({ success, failure }: TxnRequest): boolean {
  return [...success, ...failure].every(({ kind }) => kind === 'range')
}

/** etcd: api/v3rpc/key.go, checkRangeStreamRequest. */
function checkStreamable(request: RangeRequest): void {
  if (!isDefaultOrder(request)) {
    throw new StatusError(codes.unimplemented, 'RangeStream does not support custom sort orders')
  }
  if (hasFilters(request)) {
    throw new StatusError(codes.unimplemented, 'RangeStream does not support revision filters')
  }
}

/**
 * A range in chunks, at one revision, each read when the one before has left: a slow client costs one
 * chunk of memory. etcd: etcdserver/v3_server.go, rangeStream.
 */
class RangeStream {
  readonly #context: ServiceContext
  readonly #call: Call
  readonly #request: RangeRequest
  #key: string
  /** The revision that all chunks are read at, and the store's at the start. */
  #revision = 0
  #headerRevision = 0
  #sentKeys = 0
  #chunkKeys: number
  /** A chunk is being read of the log. */
  #isReading = false

  constructor(context: ServiceContext, call: Call, request: RangeRequest) {
    this.#context = context
    this.#call = call
    this.#request = request
    this.#key = request.key
    this.#chunkKeys = Math.min(firstChunkKeys, this.#limit)
  }

  run(): void {
    if (this.#request.countOnly) {
      this.#read(this.#request, (result) => {
        this.#headerRevision = result.revision
        this.#sendLast({ ...result, versions: [] })
      })
      return
    }
    this.#call.onDrain = () => withEtcdErrors(() => this.#sendWhileRoom())
    this.#sendWhileRoom()
  }

  get #limit(): number {
    return this.#request.limit > 0 ? this.#request.limit : Number.POSITIVE_INFINITY
  }

  #sendWhileRoom(): void {
    while (this.#call.isOpen && this.#call.queuedBytes === 0 && !this.#isReading) this.#sendChunk()
  }

  /** At once where memory has it. */
  #read(request: RangeRequest, done: (result: RangeResult) => void): void {
    const { engine } = this.#context
    if (engine.store.isInMemory(request.revision)) return done(engine.range(request))
    this.#isReading = true
    engine.past.range(request, {
      ...waiting(this.#call),
      done: (result) => {
        this.#isReading = false
        done(result)
        this.#sendWhileRoom()
      },
    })
  }

  #sendChunk(): void {
    const { engine } = this.#context
    const limit = Number.isFinite(this.#chunkKeys) ? this.#chunkKeys : 0
    const revision = this.#revision === 0 ? this.#request.revision : this.#revision
    const request = { ...this.#request, key: this.#key, limit, revision, needsCount: false }
    if (engine.store.isInMemory(request.revision)) return this.#sendResult(engine.range(request), revision)
    const needsCount = this.#request.limit > 0
    this.#read({ ...request, needsCount }, (result) => this.#sendResult(result, revision, result.count))
  }

  /** `count` of the keys from the first of the chunk on, where it is known. */
  #sendResult(result: RangeResult, revision: number, count?: number): void {
    if (this.#headerRevision === 0) {
      this.#headerRevision = result.revision
      this.#revision = revision > 0 ? revision : result.revision
    }
    this.#sentKeys += result.versions.length
    const last = result.versions.at(-1)
    if (!result.more || last === undefined || this.#sentKeys >= this.#limit) {
      const left = (key: string): number =>
        count === undefined ? this.#countAfter(key) : count - result.versions.length
      const rest = last === undefined || !result.more ? 0 : left(last.key)
      return this.#sendLast({ ...result, count: this.#sentKeys + rest })
    }
    const chunkBytes = this.#send(result)
    this.#key = `${last.key}\0`
    this.#chunkKeys = Math.min(this.#nextChunkKeys(chunkBytes), this.#limit - this.#sentKeys)
  }

  #countAfter(key: string): number {
    return this.#context.engine.store.count({ key: `${key}\0`, end: this.#request.end }, this.#revision)
  }

  #send(result: RangeResult): number {
    const writer = writeRangeChunk(freshWriter(), result, this.#context.engine.store.valuesOf)
    const { messageBytes } = writer
    this.#call.send(writer)
    return messageBytes
  }

  #sendLast(last: RangeResult): void {
    const { header, engine } = this.#context
    const result = { ...last, revision: this.#headerRevision }
    this.#call.reply(writeLastRangeChunk(freshWriter(), { header, result, valuesOf: engine.store.valuesOf }))
  }

  /** etcd: etcdserver/v3_server.go, adjustChunkLimit. */
  #nextChunkKeys(chunkBytes: number): number {
    const targetBytes = this.#context.options.maxRequestBytes
    if (chunkBytes < targetBytes / 2) return this.#chunkKeys * 2
    if (chunkBytes > targetBytes * 2) return Math.max(1, Math.floor(this.#chunkKeys / 2))
    return this.#chunkKeys
  }
}
