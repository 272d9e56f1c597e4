import { StatusError, codes } from '../status.ts'
import { wireTypes } from './message-writer.ts'

/**
 * Reads protobuf fields from part of a buffer, which it never copies. A caller loops over `next()`,
 * reads the fields that it knows and skips the others:
 *
 *     while (reader.next()) {
 *       if (reader.field === 1) key = reader.latin1()
 *       else reader.skip()
 *     }
 *
 * Malformed input of any kind is an Internal status, as grpc-go reports it.
 */
export class MessageReader {
  readonly #buffer: Buffer
  readonly #end: number
  #at: number
  #wireType = 0
  /** The number of the field that `next()` stopped at. */
  field = 0

  constructor(buffer: Buffer, start = 0, end: number = buffer.length) {
    this.#buffer = buffer
    this.#at = start
    this.#end = end
  }

  next(): boolean {
    if (this.#at >= this.#end) return false
    const tag = this.#varint()
    this.field = Math.floor(tag / 8)
    this.#wireType = tag % 8
    if (this.field === 0) throw malformed('field number 0')
    return true
  }

  bool(): boolean {
    this.#expect(wireTypes.varint)
    return this.#varint() !== 0
  }

  /** An int64, a uint64 or an enum as a number; beyond 2^53 it is rounded, never wrapped. */
  number(): number {
    this.#expect(wireTypes.varint)
    const start = this.#at
    const value = this.#varint()
    if (value < 2 ** 53) return value
    this.#at = start
    return Number(BigInt.asIntN(64, this.#bigint()))
  }

  int64(): bigint {
    this.#expect(wireTypes.varint)
    return BigInt.asIntN(64, this.#bigint())
  }

  uint64(): bigint {
    this.#expect(wireTypes.varint)
    return BigInt.asUintN(64, this.#bigint())
  }

  /** A view of the input. */
  bytes(): Buffer {
    const start = this.#delimited()
    return this.#buffer.subarray(start, this.#at)
  }

  /** A byte string as a latin1 string, one character a byte: how keys are kept and compared. */
  latin1(): string {
    const start = this.#delimited()
    return this.#buffer.toString('latin1', start, this.#at)
  }

  text(): string {
    const start = this.#delimited()
    return this.#buffer.toString('utf8', start, this.#at)
  }

  message(): MessageReader {
    const start = this.#delimited()
    return new MessageReader(this.#buffer, start, this.#at)
  }

  /** A repeated varint field comes as one element a tag, or packed. */
  numbers(into: number[]): void {
    if (this.#wireType === wireTypes.varint) {
      into.push(this.number())
      return
    }
    const start = this.#delimited()
    const end = this.#at
    this.#at = start
    while (this.#at < end) into.push(this.#varint())
    if (this.#at !== end) throw malformed('packed field')
  }

  skip(): void {
    switch (this.#wireType) {
      case wireTypes.varint:
        this.#varint()
        break
      case wireTypes.fixed64:
        this.#advance(8)
        break
      case wireTypes.lengthDelimited:
        this.#delimited()
        break
      case wireTypes.fixed32:
        this.#advance(4)
        break
      default:
        throw malformed(`wire type ${this.#wireType}`)
    }
  }

  #delimited(): number {
    this.#expect(wireTypes.lengthDelimited)
    const length = this.#varint()
    const start = this.#at
    this.#advance(length)
    return start
  }

  #advance(length: number): void {
    if (length > this.#end - this.#at) throw malformed('unexpected EOF')
    this.#at += length
  }

  #expect(wireType: number): void {
    if (this.#wireType !== wireType) throw malformed(`wrong wire type for field ${this.field}`)
  }

  #varint(): number {
    const buffer = this.#buffer
    const first = this.#at < this.#end ? (buffer[this.#at] as number) : 0x80
    if (first < 0x80) {
      this.#at++
      return first
    }
    let value = 0
    let scale = 1
    for (let count = 0; count < 10; count++) {
      if (this.#at >= this.#end) throw malformed('unexpected EOF')
      const byte = buffer[this.#at++] as number
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 128
    }
    throw malformed('variable length integer overflow')
  }

  #bigint(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.#at >= this.#end) throw malformed('unexpected EOF')
      const byte = this.#buffer[this.#at++] as number
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw malformed('variable length integer overflow')
  }
}

/** A reader at the first field that this path of numbers leads to, through one message in another. */
export function findField(
  message: MessageReader,
  [field, ...rest]: readonly number[],
): MessageReader | undefined {
  while (message.next()) {
    if (message.field === field) return rest.length === 0 ? message : findField(message.message(), rest)
    message.skip()
  }
  return undefined
}

function malformed(what: string): StatusError {
  return new StatusError(codes.internal, `grpc: error unmarshalling request: proto: cannot parse: ${what}`)
}
