import type { Version } from '../../mvcc/version.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { MessageWriter } from '../protobuf/message-writer.ts'
import { keyValueFieldSize, writeKeyValue } from './key-value.ts'

/** etcdserverpb.WatchCreateRequest.FilterType */
const noPut = 0
const noDelete = 1

export interface WatchCreateRequest {
  readonly kind: 'create'
  readonly key: string
  readonly end: string
  readonly startRevision: number
  readonly progressNotify: boolean
  readonly ignoresPuts: boolean
  readonly ignoresDeletes: boolean
  readonly previousKv: boolean
  readonly id: bigint
  readonly fragment: boolean
}

export type WatchRequest =
  | WatchCreateRequest
  | { readonly kind: 'cancel'; readonly id: bigint }
  | { readonly kind: 'progress' }
  | undefined

/** etcdserverpb.WatchRequest; undefined when its oneof is empty. */
export function readWatchRequest(reader: MessageReader): WatchRequest {
  let request: WatchRequest
  while (reader.next()) {
    if (reader.field === 1) request = readCreate(reader.message())
    else if (reader.field === 2) request = readCancel(reader.message())
    else {
      if (reader.field === 3) request = { kind: 'progress' }
      reader.skip()
    }
  }
  return request
}

function readCreate(reader: MessageReader): WatchCreateRequest {
  const filters: number[] = []
  const request = {
    kind: 'create' as const,
    key: '',
    end: '',
    startRevision: 0,
    progressNotify: false,
    previousKv: false,
    id: 0n,
    fragment: false,
  }
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        request.key = reader.latin1()
        break
      case 2:
        request.end = reader.latin1()
        break
      case 3:
        request.startRevision = reader.number()
        break
      case 4:
        request.progressNotify = reader.bool()
        break
      case 5:
        reader.numbers(filters)
        break
      case 6:
        request.previousKv = reader.bool()
        break
      case 7:
        request.id = reader.int64()
        break
      case 8:
        request.fragment = reader.bool()
        break
      default:
        reader.skip()
    }
  }
  return { ...request, ignoresPuts: filters.includes(noPut), ignoresDeletes: filters.includes(noDelete) }
}

function readCancel(reader: MessageReader): { kind: 'cancel'; id: bigint } {
  let id = 0n
  while (reader.next()) {
    if (reader.field === 1) id = reader.int64()
    else reader.skip()
  }
  return { kind: 'cancel', id }
}

/** The fields of etcdserverpb.WatchResponse behind its header. */
export const watchResponseTags = {
  watchId: 0x10,
  created: 0x18,
  canceled: 0x20,
  compactRevision: 0x28,
  cancelReason: 0x32,
  fragment: 0x38,
  events: 0x5a,
} as const

const eventTypeTag = 0x08
const eventDelete = 1
const eventKvTag = 0x12
const eventPreviousTag = 0x1a

/**
 * Encodes a mvccpb.Event as an element of WatchResponse.events. One is sent to many watchers, in two
 * forms at most, so what was encoded in a turn of the event loop is kept to its end.
 */
export class EventEncoder {
  readonly #valueOf: (version: Version) => Uint8Array
  readonly #writer = new MessageWriter()
  readonly #plain = new Map<Version, Buffer>()
  readonly #withPrevious = new Map<Version, Buffer>()

  constructor(valueOf: (version: Version) => Uint8Array) {
    this.#valueOf = valueOf
  }

  encode(version: Version, withPrevious: boolean): Buffer {
    const previous = withPrevious ? livePrevious(version) : undefined
    const kept = previous === undefined ? this.#plain : this.#withPrevious
    let event = kept.get(version)
    if (event === undefined) {
      if (this.#plain.size + this.#withPrevious.size === 0) setImmediate(() => this.#forget())
      event = this.#encode(version, previous)
      kept.set(version, event)
    }
    return event
  }

  #encode(version: Version, previous: Version | undefined): Buffer {
    const size =
      (version.isTombstone ? 2 : 0) +
      keyValueFieldSize(version) +
      (previous === undefined ? 0 : keyValueFieldSize(previous))
    const writer = this.#writer.reset()
    writer.lengthDelimited(watchResponseTags.events, size)
    if (version.isTombstone) writer.uint(eventTypeTag, eventDelete)
    writeKeyValue(writer, { tag: eventKvTag, version, value: this.#valueOf(version) })
    if (previous !== undefined) {
      writeKeyValue(writer, { tag: eventPreviousTag, version: previous, value: this.#valueOf(previous) })
    }
    const event = Buffer.allocUnsafe(writer.messageBytes)
    writer.bytesWritten().copy(event)
    return event
  }

  #forget(): void {
    this.#plain.clear()
    this.#withPrevious.clear()
  }
}

/** The state before an update or a deletion; none when it was compacted. */
function livePrevious({ previous }: Version): Version | undefined {
  return previous === undefined || previous.isTombstone ? undefined : previous
}
