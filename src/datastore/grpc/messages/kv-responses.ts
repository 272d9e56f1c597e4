import type {
  DeleteRangeResult,
  OperationResult,
  PutResult,
  RangeResult,
  TxnResult,
} from '../../mvcc/requests.ts'
import { Version, noBytes } from '../../mvcc/version.ts'
import { type MessageWriter, messageFieldSize, uintFieldSize } from '../protobuf/message-writer.ts'
import type { MessageParts } from '../http2/call.ts'
import { StatusError, codes } from '../status.ts'
import { type ResponseHeader, revisionHeaderSize, writeRevisionHeader } from './header.ts'
import { type Detail, keyValueFieldSize, writeKeyValue } from './key-value.ts'

type ValueOf = (version: Version) => Uint8Array
type ValuesOf = (versions: readonly Version[]) => Uint8Array[]

interface RangeResponse {
  readonly header: ResponseHeader
  readonly result: RangeResult
  readonly valuesOf: ValuesOf
}

/** What a version that waits to be sent counts: the index has most of them as numbers, so that each is an object of the reply's. */
export const heldVersionBytes = { inMemory: 192, ofPast: 512 } as const

/** Stands where a version was that has been written. */
const written = new Version({
  ...{ key: '', seq: 0, revision: 0, createRevision: 0, version: 0, lease: 0n, valueBytes: 0 },
  previous: undefined,
})

/** A part fits into one piece of a writer. */
const partTargetBytes = 192 * 1024
/** etcd sends no larger one (api/v3rpc/grpc.go, maxSendBytes). */
const largestMessageBytes = 2 ** 31 - 1
/** What is not sent in parts is in memory as a whole: one transaction can ask for all keys a hundred times. */
const largestWholeBytes = 512 * 1024 * 1024
const rangeResponseTag = 0x0a
const rangeKvsTag = 0x12
const rangeMoreTag = 0x18
const rangeCountTag = 0x20
const putPreviousTag = 0x12
const deletedTag = 0x10
const deletePreviousTag = 0x1a
const succeededTag = 0x10
const responsesTag = 0x1a
const operationTags = { range: 0x0a, put: 0x12, 'delete-range': 0x1a, txn: 0x22 } as const

function detailOf({ keysOnly }: Pick<RangeResult, 'keysOnly'>): Detail {
  return keysOnly ? 'key' : 'whole'
}

/** etcdserverpb.RangeResponse */
export function writeRangeResponse(
  writer: MessageWriter,
  { header, result, valuesOf }: RangeResponse,
): MessageWriter {
  header.write(writer, result.revision)
  writeKeyValues(writer, result, valuesOf)
  writeRangeEnd(writer, result)
  return writer
}

/** The same part by part: no value is read or copied before there is room for it. */
export class RangeResponseParts implements MessageParts {
  readonly messageBytes: number
  readonly #versionBytes: number
  readonly #header: ResponseHeader
  readonly #versions: Version[]
  readonly #result: Omit<RangeResult, 'versions'>
  readonly #valuesOf: ValuesOf
  readonly release: () => void
  #next = 0

  /** The values stay where they can be read until `release` is called. */
  constructor({
    header,
    result,
    valuesOf,
    release,
    versionBytes,
  }: RangeResponse & { release: () => void; versionBytes: number }) {
    this.#versionBytes = versionBytes
    const { versions, ...others } = result
    this.#header = header
    this.#versions = [...versions]
    this.#result = others
    this.#valuesOf = valuesOf
    this.release = release
    this.messageBytes = header.fieldSize(result.revision) + keyValuesSize(result) + rangeEndSize(result)
    if (this.messageBytes > largestMessageBytes) release()
    requireSendable(this.messageBytes, largestMessageBytes)
  }

  get heldBytes(): number {
    return (this.#versions.length - this.#next) * this.#versionBytes
  }

  write(writer: MessageWriter): boolean {
    const versions = this.#versions
    if (this.#next === 0) this.#header.write(writer, this.#result.revision)
    const end = this.#endOfPart()
    const part = versions.slice(this.#next, end)
    writeKeyValues(writer, { versions: part, keysOnly: false }, this.#valuesOf)
    // What was written is let go: a list may wait for its client for long.
    versions.fill(written, this.#next, end)
    this.#next = end
    if (this.#next < versions.length) return true
    writeRangeEnd(writer, this.#result)
    return false
  }

  #endOfPart(): number {
    const versions = this.#versions
    let end = this.#next
    for (let bytes = 0; end < versions.length && bytes < partTargetBytes; end++) {
      bytes += keyValueFieldSize(versions[end] as Version)
    }
    return end
  }
}

function writeKeyValues(
  writer: MessageWriter,
  result: Pick<RangeResult, 'versions' | 'keysOnly'>,
  valuesOf: ValuesOf,
): void {
  const detail = detailOf(result)
  const values = result.keysOnly ? [] : valuesOf(result.versions)
  result.versions.forEach((version, at) => {
    writeKeyValue(writer, { tag: rangeKvsTag, version, value: values[at] ?? noBytes, detail })
  })
}

/** etcdserverpb.RangeStreamResponse without a header: all chunks but the last. */
export function writeRangeChunk(
  writer: MessageWriter,
  result: RangeResult,
  valuesOf: ValuesOf,
): MessageWriter {
  writer.lengthDelimited(rangeResponseTag, keyValuesSize(result))
  writeKeyValues(writer, result, valuesOf)
  return writer
}

/** The last RangeStreamResponse, which alone has header, more and count. */
export function writeLastRangeChunk(
  writer: MessageWriter,
  { header, result, valuesOf }: RangeResponse,
): MessageWriter {
  const size = header.fieldSize(result.revision) + keyValuesSize(result) + rangeEndSize(result)
  writer.lengthDelimited(rangeResponseTag, size)
  header.write(writer, result.revision)
  writeKeyValues(writer, result, valuesOf)
  writeRangeEnd(writer, result)
  return writer
}

function keyValuesSize(result: RangeResult): number {
  const detail = detailOf(result)
  return sum(result.versions, (version) => keyValueFieldSize(version, detail))
}

function rangeEndSize({ more, count }: RangeResult): number {
  return (more ? 2 : 0) + uintFieldSize(count)
}

function writeRangeEnd(writer: MessageWriter, { more, count }: { more: boolean; count: number }): void {
  writer.bool(rangeMoreTag, more)
  writer.uint(rangeCountTag, count)
}

/** etcdserverpb.PutResponse */
export function writePutResponse(
  writer: MessageWriter,
  { header, result, valueOf }: { header: ResponseHeader; result: PutResult; valueOf: ValueOf },
): MessageWriter {
  header.write(writer, result.revision)
  writePrevious(writer, result, valueOf)
  return writer
}

/** etcdserverpb.DeleteRangeResponse */
export function writeDeleteRangeResponse(
  writer: MessageWriter,
  { header, result, valueOf }: { header: ResponseHeader; result: DeleteRangeResult; valueOf: ValueOf },
): MessageWriter {
  requireSendable(bodySize(result, []), largestWholeBytes)
  header.write(writer, result.revision)
  writeDeleted(writer, result, valueOf)
  return writer
}

/** etcdserverpb.TxnResponse */
export function writeTxnResponse(
  writer: MessageWriter,
  { header, result, valueOf }: { header: ResponseHeader; result: TxnResult; valueOf: ValueOf },
): MessageWriter {
  const operations = result.results.map(measure)
  requireSendable(
    sum(operations, ({ size }) => messageFieldSize(messageFieldSize(size))),
    largestWholeBytes,
  )
  header.write(writer, result.revision)
  writer.bool(succeededTag, result.succeeded)
  for (const operation of operations) writeOperation(writer, operation, valueOf)
  return writer
}

/** The words of grpc-go (server.go, sendResponse). */
function requireSendable(bytes: number, limitBytes: number): void {
  if (bytes <= limitBytes) return
  throw new StatusError(
    codes.resourceExhausted,
    `grpc: trying to send message larger than max (${bytes} vs. ${limitBytes})`,
  )
}

/** An operation's result with the size of its message, determined once. */
interface Measured {
  readonly result: OperationResult
  readonly size: number
  readonly operations: readonly Measured[]
}

function measure(result: OperationResult): Measured {
  const operations = result.kind === 'txn' ? result.results.map(measure) : []
  return { result, size: revisionHeaderSize(result.revision) + bodySize(result, operations), operations }
}

function bodySize(result: OperationResult, operations: readonly Measured[]): number {
  switch (result.kind) {
    case 'range':
      return keyValuesSize(result) + rangeEndSize(result)
    case 'put':
      return result.previous === undefined ? 0 : keyValueFieldSize(result.previous)
    case 'delete-range':
      return uintFieldSize(result.deleted) + sum(result.previous, (version) => keyValueFieldSize(version))
    case 'txn':
      return (
        (result.succeeded ? 2 : 0) + sum(operations, ({ size }) => messageFieldSize(messageFieldSize(size)))
      )
  }
}

/** etcdserverpb.ResponseOp as an element of TxnResponse.responses. */
function writeOperation(
  writer: MessageWriter,
  { result, size, operations }: Measured,
  valueOf: ValueOf,
): void {
  writer.lengthDelimited(responsesTag, messageFieldSize(size))
  writer.lengthDelimited(operationTags[result.kind], size)
  writeRevisionHeader(writer, result.revision)
  switch (result.kind) {
    case 'range':
      writeKeyValues(writer, result, (versions) => versions.map(valueOf))
      return writeRangeEnd(writer, result)
    case 'put':
      return writePrevious(writer, result, valueOf)
    case 'delete-range':
      return writeDeleted(writer, result, valueOf)
    case 'txn':
      writer.bool(succeededTag, result.succeeded)
      for (const operation of operations) writeOperation(writer, operation, valueOf)
  }
}

function writePrevious(writer: MessageWriter, { previous }: PutResult, valueOf: ValueOf): void {
  if (previous === undefined) return
  writeKeyValue(writer, { tag: putPreviousTag, version: previous, value: valueOf(previous) })
}

function writeDeleted(
  writer: MessageWriter,
  { deleted, previous }: DeleteRangeResult,
  valueOf: ValueOf,
): void {
  writer.uint(deletedTag, deleted)
  for (const version of previous) {
    writeKeyValue(writer, { tag: deletePreviousTag, version, value: valueOf(version) })
  }
}

function sum<Item>(items: readonly Item[], size: (item: Item) => number): number {
  let total = 0
  for (const item of items) total += size(item)
  return total
}
