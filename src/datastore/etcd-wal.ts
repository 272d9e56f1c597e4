import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { MessageReader } from './grpc/protobuf/message-reader.ts'

/** The records that begin each file of a log fit in it many times over. */
const headBytes = 4096
const lengthBytes = 8
/** Below the number of bytes of padding, in the highest byte of a length (storage/wal/encoder.go). */
const lengthMask = (1n << 56n) - 1n
/** walpb.Record, its type metadata (storage/wal/wal.go), and etcdserverpb.Metadata in it. */
const recordFields = { type: 1, data: 3 } as const
const metadataType = 1
const idFields = { member: 1, cluster: 2 } as const

export interface MemberIds {
  readonly clusterId: bigint
  readonly memberId: bigint
}

/**
 * Of which cluster the data in a directory are, and of which of its members, without an etcd that runs; undefined: there are none, or they
 * cannot be understood. Each file of a log begins with it.
 */
export function idsOfMember(memberDir: string): MemberIds | undefined {
  try {
    const dir = join(memberDir, 'member', 'wal')
    const last = readdirSync(dir)
      .filter((name) => name.endsWith('.wal'))
      .sort()
      .at(-1)
    return last === undefined ? undefined : idsIn(readHead(join(dir, last)))
  } catch {
    // Whoever starts it will say what is wrong with it.
    return undefined
  }
}

function idsIn(head: Buffer): MemberIds | undefined {
  for (let at = 0; at + lengthBytes <= head.length; ) {
    const length = head.readBigUInt64LE(at)
    const bytes = Number(length & lengthMask)
    const padding = length >> 63n === 0n ? 0 : Number((length >> 56n) & 7n)
    const end = at + lengthBytes + bytes
    if (bytes === 0 || end > head.length) return undefined
    const { type, data } = record(new MessageReader(head, at + lengthBytes, end))
    if (type === metadataType) return idsOf(new MessageReader(data))
    at = end + padding
  }
  return undefined
}

function record(reader: MessageReader): { type: number; data: Buffer } {
  const found: { type: number; data: Buffer } = { type: 0, data: Buffer.alloc(0) }
  while (reader.next()) {
    if (reader.field === recordFields.type) found.type = reader.number()
    else if (reader.field === recordFields.data) found.data = reader.bytes()
    else reader.skip()
  }
  return found
}

function idsOf(reader: MessageReader): MemberIds {
  const found = { clusterId: 0n, memberId: 0n }
  while (reader.next()) {
    if (reader.field === idFields.member) found.memberId = reader.uint64()
    else if (reader.field === idFields.cluster) found.clusterId = reader.uint64()
    else reader.skip()
  }
  return found
}

function readHead(path: string): Buffer {
  const descriptor = openSync(path, 'r')
  try {
    const head = Buffer.alloc(headBytes)
    return head.subarray(0, readSync(descriptor, head, 0, headBytes, 0))
  } finally {
    closeSync(descriptor)
  }
}
