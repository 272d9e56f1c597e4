import { BufferPool } from '../../../base/buffer-pool.ts'
import { assert } from '../../../base/errors.ts'

/** Room for gRPC's prefix of a message: one flag byte and the length in four. */
export const grpcPrefixBytes = 5

const firstCapacityBytes = 16 * 1024
/** What large messages are made of; as many are kept as one congested connection has on their way. */
export const pieces = new BufferPool(256 * 1024, 8)
/** A writer's memory beyond this goes along with its message instead of being copied and kept. */
const keptCapacityBytes = 64 * 1024

export const wireTypes = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const

/**
 * Writes one protobuf message behind the room for gRPC's prefix. Fields are written in the order of
 * their numbers, zero values are left out, and lengths are computed before their contents are written:
 * nothing is moved afterwards.
 */
export class MessageWriter {
  #buffer: Buffer = Buffer.allocUnsafeSlow(firstCapacityBytes)
  /** Goes on being used when the pieces of a large message have changed hands. */
  #spare: Buffer | undefined
  #position = grpcPrefixBytes
  #closed: Buffer[] = []
  #closedBytes = 0

  get framedBytes(): number {
    return this.#closedBytes + this.#position
  }

  get messageBytes(): number {
    return this.framedBytes - grpcPrefixBytes
  }

  /** The message without its prefix; valid until the writer is used again. */
  bytesWritten(): Buffer {
    return this.#whole().subarray(grpcPrefixBytes)
  }

  /** The message behind its prefix; valid until the writer is used again. */
  framed(): Buffer {
    this.#writePrefix()
    return this.#whole()
  }

  /**
   * The same in pieces that change hands, and may be given back to `pieces` when they have left; a small message is
   * copied. A message that goes on in further parts has `messageBytes` of them all.
   */
  takeFramed(messageBytes: number = this.messageBytes): Buffer[] {
    this.#writePrefix(messageBytes)
    return this.#take(0)
  }

  /** A further part of a message, which has no prefix. */
  takePart(): Buffer[] {
    return this.#take(grpcPrefixBytes)
  }

  #take(start: number): Buffer[] {
    const last = this.#buffer.subarray(0, this.#position)
    if (this.#closed.length === 0 && last.length <= keptCapacityBytes)
      return [Buffer.from(last.subarray(start))]
    const taken = [...this.#closed, last]
    taken[0] = (taken[0] as Buffer).subarray(start)
    this.#buffer = this.#spare ?? Buffer.allocUnsafeSlow(firstCapacityBytes)
    this.#spare = undefined
    this.reset()
    return taken
  }

  reset(): this {
    this.#position = grpcPrefixBytes
    this.#closed = []
    this.#closedBytes = 0
    return this
  }

  bool(tag: number, value: boolean): void {
    if (!value) return
    this.#reserve(tagLimitBytes + 1)
    this.#varint(tag)
    this.#buffer[this.#position++] = 1
  }

  /** A uint64, int64 or enum that is not negative. */
  uint(tag: number, value: number): void {
    if (value === 0) return
    this.#reserve(tagLimitBytes + varintLimitBytes)
    this.#varint(tag)
    this.#varint(value)
  }

  /** Any int64 (as two's complement) or uint64. */
  bigint(tag: number, value: bigint): void {
    if (value === 0n) return
    this.#reserve(tagLimitBytes + varintLimitBytes)
    this.#varint(tag)
    let rest = BigInt.asUintN(64, value)
    while (rest >= 0x80n) {
      this.#buffer[this.#position++] = Number(rest & 0x7fn) | 0x80
      rest >>= 7n
    }
    this.#buffer[this.#position++] = Number(rest)
  }

  bytes(tag: number, value: Uint8Array): void {
    if (value.length === 0) return
    this.presentBytes(tag, value)
  }

  /** Also when it is empty: an element of a repeated field. */
  presentBytes(tag: number, value: Uint8Array): void {
    this.lengthDelimited(tag, value.length)
    this.#buffer.set(value, this.#position)
    this.#position += value.length
  }

  /** A byte string that is kept as a latin1 string: a key. */
  latin1(tag: number, value: string): void {
    if (value.length !== 0) this.presentLatin1(tag, value)
  }

  presentLatin1(tag: number, value: string): void {
    this.lengthDelimited(tag, value.length)
    this.#position += this.#buffer.write(value, this.#position, value.length, 'latin1')
  }

  text(tag: number, value: string): void {
    if (value === '') return
    const length = Buffer.byteLength(value)
    this.lengthDelimited(tag, length)
    this.#position += this.#buffer.write(value, this.#position, length)
  }

  /** Tag and length of a field whose `length` bytes follow; room for them is made. */
  lengthDelimited(tag: number, length: number): void {
    this.#reserve(tagLimitBytes + varintLimitBytes + length)
    this.#varint(tag)
    this.#varint(length)
  }

  /** Bytes that are encoded already. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length)
    this.#buffer.set(bytes, this.#position)
    this.#position += bytes.length
  }

  #varint(value: number): void {
    const buffer = this.#buffer
    let position = this.#position
    while (value > 0x7fff_ffff) {
      buffer[position++] = (value % 128) | 0x80
      value = Math.floor(value / 128)
    }
    while (value > 0x7f) {
      buffer[position++] = (value & 0x7f) | 0x80
      value >>>= 7
    }
    buffer[position++] = value
    this.#position = position
  }

  #reserve(bytes: number): void {
    const needed = this.#position + bytes
    if (needed <= this.#buffer.length) return
    if (needed > pieces.bytes) {
      this.#closed.push(this.#buffer.subarray(0, this.#position))
      this.#closedBytes += this.#position
      this.#buffer = takePiece(bytes)
      this.#position = 0
      return
    }
    const capacity = Math.max(needed, this.#buffer.length * 2)
    const grown: Buffer =
      capacity > keptCapacityBytes ? takePiece(capacity) : Buffer.allocUnsafeSlow(capacity)
    grown.set(this.#buffer.subarray(0, this.#position))
    if (this.#buffer.length <= keptCapacityBytes) this.#spare = this.#buffer
    this.#buffer = grown
  }

  #whole(): Buffer {
    const last = this.#buffer.subarray(0, this.#position)
    return this.#closed.length === 0 ? last : Buffer.concat([...this.#closed, last])
  }

  #writePrefix(messageBytes: number = this.messageBytes): void {
    const first = this.#closed[0] ?? this.#buffer
    first[0] = 0
    first.writeUInt32BE(messageBytes, 1)
  }
}

/** A piece with room for so many bytes. */
function takePiece(bytes: number): Buffer {
  return bytes > pieces.bytes ? Buffer.allocUnsafeSlow(bytes) : pieces.take()
}

const tagLimitBytes = 5
const varintLimitBytes = 10

export function varintSize(value: number): number {
  assert(value >= 0, `varintSize of ${value}`)
  let size = 1
  for (let limit = 128; value >= limit; limit *= 128) size++
  return size
}

/** The size of a varint field with a one-byte tag, nothing when its value is 0. */
export function uintFieldSize(value: number): number {
  return value === 0 ? 0 : 1 + varintSize(value)
}

export function bigintFieldSize(value: bigint): number {
  if (value === 0n) return 0
  let size = 2
  for (let rest = BigInt.asUintN(64, value) >> 7n; rest > 0n; rest >>= 7n) size++
  return size
}

/** The size of a length-delimited field with a one-byte tag, nothing when it is empty. */
export function bytesFieldSize(length: number): number {
  return length === 0 ? 0 : messageFieldSize(length)
}

/** The same, but an empty one counts: an embedded message that is present. */
export function messageFieldSize(length: number): number {
  return 1 + varintSize(length) + length
}
