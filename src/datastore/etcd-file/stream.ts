import type { LoggedLease } from '../log/batch.ts'
import type { DumpedVersion } from '../log/dump.ts'

/*
 * The stream that the program etcd-file writes and reads: components/etcd-file/stream.go describes it.
 */

const streamFormat = 1
const kinds = { head: 0x48, version: 0x56, lease: 0x4c, end: 0x45 } as const

const prefixBytes = 4 + 1
const headBytes = 4 + 3 * 8 + 1
const versionHeadBytes = 5 * 8 + 4
const leaseBytes = 3 * 8
const endBytes = 2 * 8

interface StreamHead {
  /** -1 when nothing was ever compacted. */
  readonly compactedRevision: number
  readonly consistentIndex: number
  readonly term: number
  readonly isAuthEnabled: boolean
}

export function encodeHead({ compactedRevision, consistentIndex, term, isAuthEnabled }: StreamHead): Buffer {
  const record = start(kinds.head, headBytes)
  record.writeUInt32LE(streamFormat, prefixBytes)
  writeNumbers(record, prefixBytes + 4, [compactedRevision, consistentIndex, term])
  record.writeUInt8(isAuthEnabled ? 1 : 0, prefixBytes + headBytes - 1)
  return record
}

export function encodeVersion(given: DumpedVersion): Buffer {
  const { revision, sub, createRevision, version, lease, key, value } = given
  const record = start(kinds.version, versionHeadBytes + key.length + value.length)
  const at = writeNumbers(record, prefixBytes, [revision, sub, createRevision, version, lease])
  record.writeUInt32LE(key.length, at)
  record.set(key, at + 4)
  record.set(value, at + 4 + key.length)
  return record
}

/** What is left of a lease is not told: whoever starts with it grants all of it anew, as etcd does (lease/lessor.go, Promote). */
export function encodeLease({ id, ttlSeconds }: LoggedLease): Buffer {
  const record = start(kinds.lease, leaseBytes)
  writeNumbers(record, prefixBytes, [id, ttlSeconds, 0])
  return record
}

export function encodeEnd({ versions, leases }: { versions: number; leases: number }): Buffer {
  const record = start(kinds.end, endBytes)
  writeNumbers(record, prefixBytes, [versions, leases])
  return record
}

export type StreamRecord =
  | ({ readonly kind: 'head' } & StreamHead)
  | ({ readonly kind: 'version' } & DumpedVersion)
  | ({ readonly kind: 'lease' } & LoggedLease)
  | { readonly kind: 'end' }

/** The records of a stream; throws when it ends before its end record. Keys and values are views of chunks. */
export async function* decodeStream(chunks: AsyncIterable<Buffer>): AsyncGenerator<StreamRecord> {
  let rest: Buffer = Buffer.alloc(0)
  let isEnded = false
  for await (const chunk of chunks) {
    const buffer = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (buffer.length - at >= 4) {
      const end = at + 4 + buffer.readUInt32LE(at)
      if (end > buffer.length) break
      const record = decode(buffer.subarray(at + 4, end))
      isEnded = record.kind === 'end'
      yield record
      at = end
    }
    rest = buffer.subarray(at)
  }
  if (!isEnded || rest.length > 0) throw new Error('the stream of etcd-file ends in the middle')
}

function decode(record: Buffer): StreamRecord {
  const body = record.subarray(1)
  const number = (at: number): number => Number(body.readBigInt64LE(at))
  switch (record[0]) {
    case kinds.head:
      return {
        kind: 'head',
        compactedRevision: number(4),
        consistentIndex: number(12),
        term: number(20),
        isAuthEnabled: body[headBytes - 1] === 1,
      }
    case kinds.version: {
      const keyEnd = versionHeadBytes + body.readUInt32LE(40)
      return {
        kind: 'version',
        revision: number(0),
        sub: number(8),
        createRevision: number(16),
        version: number(24),
        lease: body.readBigInt64LE(32),
        key: body.subarray(versionHeadBytes, keyEnd),
        value: body.subarray(keyEnd),
      }
    }
    case kinds.lease:
      return { kind: 'lease', id: body.readBigInt64LE(0), ttlSeconds: number(8) }
    case kinds.end:
      return { kind: 'end' }
    default:
      throw new Error(`the stream of etcd-file has a record of kind ${record[0]}`)
  }
}

function start(kind: number, bytes: number): Buffer {
  const record = Buffer.allocUnsafe(prefixBytes + bytes)
  record.writeUInt32LE(bytes + 1, 0)
  record.writeUInt8(kind, 4)
  return record
}

function writeNumbers(record: Buffer, at: number, numbers: readonly (number | bigint)[]): number {
  for (const number of numbers) at = record.writeBigInt64LE(BigInt(number), at)
  return at
}
