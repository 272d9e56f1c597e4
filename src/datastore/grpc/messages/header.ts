import { MessageWriter, messageFieldSize, uintFieldSize, varintSize } from '../protobuf/message-writer.ts'

/** A single member elects itself once, as etcd's does. */
export const raftTerm = 2

const headerTag = 0x0a
const clusterIdTag = 0x08
const memberIdTag = 0x10
const revisionTag = 0x18
const raftTermTag = 0x20

/** etcdserverpb.ResponseHeader: its ids and term never change. */
export class ResponseHeader {
  readonly clusterId: bigint
  readonly memberId: bigint
  readonly #ids: Buffer
  readonly #term: Buffer

  constructor({ clusterId, memberId }: { clusterId: bigint; memberId: bigint }) {
    this.clusterId = clusterId
    this.memberId = memberId
    const ids = new MessageWriter()
    ids.bigint(clusterIdTag, clusterId)
    ids.bigint(memberIdTag, memberId)
    this.#ids = Buffer.from(ids.bytesWritten())
    this.#term = Buffer.of(raftTermTag, raftTerm)
  }

  /** Writes the header as field 1; a revision of 0 is left out. */
  write(writer: MessageWriter, revision: number): void {
    writer.lengthDelimited(headerTag, this.#size(revision))
    writer.raw(this.#ids)
    writer.uint(revisionTag, revision)
    writer.raw(this.#term)
  }

  /** What `write` writes, with tag and length. */
  fieldSize(revision: number): number {
    return messageFieldSize(this.#size(revision))
  }

  #size(revision: number): number {
    return this.#ids.length + uintFieldSize(revision) + this.#term.length
  }
}

/** The header of an operation in a transaction: it has a revision alone. */
export function writeRevisionHeader(writer: MessageWriter, revision: number): void {
  writer.lengthDelimited(headerTag, uintFieldSize(revision))
  writer.uint(revisionTag, revision)
}

export function revisionHeaderSize(revision: number): number {
  const size = uintFieldSize(revision)
  return 1 + varintSize(size) + size
}
