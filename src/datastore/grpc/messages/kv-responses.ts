import type {
  DeleteRangeResult,
  OperationResult,
  PutResult,
  RangeResult,
  TxnResult,
} from '../../mvcc/requests.ts'
import type { HeldValues } from '../../mvcc/store.ts'
import type { Version } from '../../mvcc/version.ts'
import { type MessageWriter, messageFieldSize, uintFieldSize } from '../protobuf/message-writer.ts'
import type { MessageParts } from '../http2/call.ts'
import { type ResponseHeader, revisionHeaderSize, writeRevisionHeader } from './header.ts'
import { type Detail, keyValueFieldSize, writeKeyValue } from './key-value.ts'

type ValueOf = (version: Version) => Uint8Array
type ValuesOf = (versions: readonly Version[]) => Uint8Array[]

interface RangeResponse {
  readonly header: ResponseHeader
  readonly result: RangeResult
  readonly valuesOf: ValuesOf
}

const noValue = new Uint8Array(0)
/** A part fits into one piece of a writer. */
const partTargetBytes = 192 * 1024
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

function detailOf({ keysOnly }: RangeResult): Detail {
  return keysOnly ? 'key' : 'whole'
}

/** etcdserverpb.RangeResponse */
export function writeRangeResponse(
  writer: MessageWriter,
  { header, result, valuesOf }: RangeResponse,
): MessageWriter {
  header.write(writer, result.revision)
  writeKeyValues(writer, result, valuesIn(result, valuesOf))
  writeRangeEnd(writer, result)
  return writer
}

/**
 * The same part by part: of the values that are in memory anyway nothing is copied before there is room for
 * it. The values are held on to, since a compaction may come between two parts.
 */
export class RangeResponseParts implements MessageParts {
  readonly messageBytes: number
  readonly #header: ResponseHeader
  readonly #result: RangeResult
  readonly #held: HeldValues
  #next = 0

  constructor({ header, result, held }: { header: ResponseHeader; result: RangeResult; held: HeldValues }) {
    this.#header = header
    this.#result = result
    this.#held = held
    this.messageBytes =
      header.fieldSize(result.revision) + keyValuesSize(result, held.values) + rangeEndSize(result)
  }

  write(writer: MessageWriter): boolean {
    const { versions, revision } = this.#result
    if (this.#next === 0) this.#header.write(writer, revision)
    while (this.#next < versions.length && writer.messageBytes < partTargetBytes) {
      const version = versions[this.#next] as Version
      writeKeyValue(writer, { tag: rangeKvsTag, version, value: this.#held.values[this.#next] as Uint8Array })
      this.#next++
    }
    if (this.#next < versions.length) return true
    writeRangeEnd(writer, this.#result)
    return false
  }

  release(): void {
    this.#held.release()
  }
}

function writeKeyValues(writer: MessageWriter, result: RangeResult, values: readonly Uint8Array[]): void {
  const detail = detailOf(result)
  result.versions.forEach((version, at) => {
    writeKeyValue(writer, { tag: rangeKvsTag, version, value: values[at] ?? noValue, detail })
  })
}

/** etcdserverpb.RangeStreamResponse without a header: all chunks but the last. */
export function writeRangeChunk(
  writer: MessageWriter,
  result: RangeResult,
  valuesOf: ValuesOf,
): MessageWriter {
  const values = valuesIn(result, valuesOf)
  writer.lengthDelimited(rangeResponseTag, keyValuesSize(result, values))
  writeKeyValues(writer, result, values)
  return writer
}

/** The last RangeStreamResponse, which alone has header, more and count. */
export function writeLastRangeChunk(
  writer: MessageWriter,
  { header, result, valuesOf }: RangeResponse,
): MessageWriter {
  const values = valuesIn(result, valuesOf)
  const size = header.fieldSize(result.revision) + keyValuesSize(result, values) + rangeEndSize(result)
  writer.lengthDelimited(rangeResponseTag, size)
  header.write(writer, result.revision)
  writeKeyValues(writer, result, values)
  writeRangeEnd(writer, result)
  return writer
}

/** The values of a chunk, each read once. */
function valuesIn(result: RangeResult, valuesOf: ValuesOf): readonly Uint8Array[] {
  return result.keysOnly ? [] : valuesOf(result.versions)
}

function keyValuesSize(result: RangeResult, values: readonly Uint8Array[]): number {
  const detail = detailOf(result)
  return sum(result.versions, (version, at) => keyValueFieldSize(version, values[at]?.length ?? 0, detail))
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
  const { previous } = result
  if (previous !== undefined) {
    writeKeyValue(writer, { tag: putPreviousTag, version: previous, value: valueOf(previous) })
  }
  return writer
}

/** etcdserverpb.DeleteRangeResponse */
export function writeDeleteRangeResponse(
  writer: MessageWriter,
  { header, result, valueOf }: { header: ResponseHeader; result: DeleteRangeResult; valueOf: ValueOf },
): MessageWriter {
  header.write(writer, result.revision)
  writer.uint(deletedTag, result.deleted)
  for (const version of result.previous) {
    writeKeyValue(writer, { tag: deletePreviousTag, version, value: valueOf(version) })
  }
  return writer
}

/** etcdserverpb.TxnResponse */
export function writeTxnResponse(
  writer: MessageWriter,
  { header, result, valueOf }: { header: ResponseHeader; result: TxnResult; valueOf: ValueOf },
): MessageWriter {
  header.write(writer, result.revision)
  writer.bool(succeededTag, result.succeeded)
  for (const operation of result.results) writeOperation(writer, measure(operation, valueOf))
  return writer
}

/** An operation's result with its values and the size of its message, each determined once. */
interface Measured {
  readonly result: OperationResult
  readonly size: number
  readonly values: readonly Uint8Array[]
  readonly operations: readonly Measured[]
}

function measure(result: OperationResult, valueOf: ValueOf): Measured {
  switch (result.kind) {
    case 'range': {
      const values = result.keysOnly ? [] : result.versions.map(valueOf)
      const detail = detailOf(result)
      const size =
        revisionHeaderSize(result.revision) +
        sum(result.versions, (version, at) => keyValueFieldSize(version, values[at]?.length ?? 0, detail)) +
        (result.more ? 2 : 0) +
        uintFieldSize(result.count)
      return { result, size, values, operations: [] }
    }
    case 'put': {
      const { previous } = result
      const values = previous === undefined ? [] : [valueOf(previous)]
      const previousSize = previous === undefined ? 0 : keyValueFieldSize(previous, values[0]?.length ?? 0)
      return { result, size: revisionHeaderSize(result.revision) + previousSize, values, operations: [] }
    }
    case 'delete-range': {
      const values = result.previous.map(valueOf)
      const size =
        revisionHeaderSize(result.revision) +
        uintFieldSize(result.deleted) +
        sum(result.previous, (version, at) => keyValueFieldSize(version, values[at]?.length ?? 0))
      return { result, size, values, operations: [] }
    }
    case 'txn': {
      const operations = result.results.map((operation) => measure(operation, valueOf))
      const size =
        revisionHeaderSize(result.revision) +
        (result.succeeded ? 2 : 0) +
        sum(operations, ({ size: inner }) => messageFieldSize(messageFieldSize(inner)))
      return { result, size, values: [], operations }
    }
  }
}

/** etcdserverpb.ResponseOp as an element of TxnResponse.responses. */
function writeOperation(writer: MessageWriter, { result, size, values, operations }: Measured): void {
  writer.lengthDelimited(responsesTag, messageFieldSize(size))
  writer.lengthDelimited(operationTags[result.kind], size)
  writeRevisionHeader(writer, result.revision)
  switch (result.kind) {
    case 'range':
      result.versions.forEach((version, at) => {
        writeKeyValue(writer, {
          tag: rangeKvsTag,
          version,
          value: values[at] ?? noValue,
          detail: detailOf(result),
        })
      })
      return writeRangeEnd(writer, result)
    case 'put':
      if (result.previous === undefined) return
      return writeKeyValue(writer, {
        tag: putPreviousTag,
        version: result.previous,
        value: values[0] ?? noValue,
      })
    case 'delete-range':
      writer.uint(deletedTag, result.deleted)
      result.previous.forEach((version, at) => {
        writeKeyValue(writer, { tag: deletePreviousTag, version, value: values[at] ?? noValue })
      })
      return
    case 'txn':
      writer.bool(succeededTag, result.succeeded)
      for (const operation of operations) writeOperation(writer, operation)
  }
}

function sum<Item>(items: readonly Item[], size: (item: Item, at: number) => number): number {
  let total = 0
  for (let at = 0; at < items.length; at++) total += size(items[at] as Item, at)
  return total
}
