import { MessageWriter } from '../../../src/datastore/grpc/protobuf/message-writer.ts'

/** A message of the fields that are given: strings and bytes length-delimited, numbers as varints. */
export function message(fields: Record<number, string | Uint8Array | number | bigint>): Buffer {
  const writer = new MessageWriter()
  for (const [field, value] of Object.entries(fields)) {
    const number = Number(field)
    if (typeof value === 'number') writer.bigint(number * 8, BigInt(value))
    else if (typeof value === 'bigint') writer.bigint(number * 8, value)
    else writer.presentBytes(number * 8 + 2, Buffer.from(value as Uint8Array))
  }
  return Buffer.from(writer.bytesWritten())
}

export type Fields = Map<number, (bigint | Buffer)[]>

/** The fields of a message by their numbers: varints as numbers, all else as bytes. */
export function fieldsOf(bytes: Buffer): Fields {
  const fields: Fields = new Map()
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = varint(bytes, at)
    const [value, afterValue] = varint(bytes, afterTag)
    at = afterValue
    const field = Number(tag >> 3n)
    const list = fields.get(field) ?? []
    fields.set(field, list)
    if ((tag & 7n) === 0n) {
      list.push(value)
      continue
    }
    at += Number(value)
    list.push(bytes.subarray(afterValue, at))
  }
  return fields
}

function varint(bytes: Buffer, start: number): [value: bigint, end: number] {
  let value = 0n
  for (let at = start, shift = 0n; ; at++, shift += 7n) {
    const byte = bytes[at]
    if (byte === undefined) throw new Error('truncated varint')
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return [value, at + 1]
  }
}
