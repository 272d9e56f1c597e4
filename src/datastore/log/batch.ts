import { assert } from '../../base/errors.ts'

/** A row of `version`: one state of one key. The key is a latin1 string, one character a byte. */
export interface LoggedVersion {
  readonly seq: number
  readonly revision: number
  /** Its place among the versions of its revision. */
  readonly sub: number
  readonly key: string
  readonly createRevision: number
  /** 0 marks a tombstone, which has no value. */
  readonly version: number
  readonly lease: bigint
  readonly valueBytes: number
  /** The seq of the live state that it replaces or deletes; 0 when it creates its key. */
  readonly previousSeq: number
}

export interface LoggedLease {
  readonly id: bigint
  readonly ttlSeconds: number
}

/** What the log keeps by name. */
const metaNames = [
  'cluster_id',
  'member_id',
  'compact_revision',
  // What was superseded at this revision and before has been removed.
  'removed_revision',
  'no_space',
  'started_ms',
  'retention_notes',
] as const
export type MetaName = (typeof metaNames)[number]

/** A version in a batch, beside its value. */
export type BatchedVersion = Omit<LoggedVersion, 'key' | 'valueBytes'> & { readonly key: Buffer }

/** What a batch asks of the database, in its order. */
export interface BatchSink {
  version(version: BatchedVersion, value: Buffer): void
  lease(lease: LoggedLease): void
  endLease(id: bigint): void
  meta(name: MetaName, value: string): void
  forget(seq: number): void
}

const operations = { version: 1, lease: 2, endLease: 3, meta: 4, forget: 5 } as const

const versionHeadBytes = 1 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 4
const firstCapacityBytes = 32 * 1024
/** What is kept of the memory of batches that were written. */
const spares = { count: 4, bytes: 1024 * 1024 }

/**
 * A sequence of operations as one block of bytes, which changes threads without being copied. Both
 * sides run the same build, so the format has no version.
 */
export class BatchWriter {
  #buffer = Buffer.allocUnsafeSlow(firstCapacityBytes)
  #at = 0
  #spares: ArrayBuffer[] = []

  get isEmpty(): boolean {
    return this.#at === 0
  }

  get bytes(): number {
    return this.#at
  }

  version(version: LoggedVersion, value: Uint8Array): void {
    const { key } = version
    this.#start(operations.version, versionHeadBytes + key.length + value.length)
    this.#number(version.seq)
    this.#number(version.revision)
    this.#length(version.sub)
    this.#number(version.createRevision)
    this.#number(version.version)
    this.#id(version.lease)
    this.#number(version.previousSeq)
    this.#length(key.length)
    this.#length(value.length)
    this.#at += this.#buffer.write(key, this.#at, key.length, 'latin1')
    this.#buffer.set(value, this.#at)
    this.#at += value.length
  }

  lease({ id, ttlSeconds }: LoggedLease): void {
    this.#start(operations.lease, 1 + 16)
    this.#id(id)
    this.#number(ttlSeconds)
  }

  endLease(id: bigint): void {
    this.#start(operations.endLease, 1 + 8)
    this.#id(id)
  }

  meta(name: MetaName, value: string): void {
    this.#start(operations.meta, 1 + 1 + 4 + value.length)
    this.#buffer[this.#at++] = metaNames.indexOf(name)
    this.#length(value.length)
    this.#at += this.#buffer.write(value, this.#at, value.length, 'latin1')
  }

  forget(seq: number): void {
    this.#start(operations.forget, 1 + 8)
    this.#number(seq)
  }

  /** The batch, to be transferred; the writer starts anew. */
  take(): Uint8Array<ArrayBuffer> {
    const batch = new Uint8Array(this.#buffer.buffer as ArrayBuffer, 0, this.#at)
    const spare = this.#spares.pop()
    this.#buffer = spare === undefined ? Buffer.allocUnsafeSlow(firstCapacityBytes) : Buffer.from(spare)
    this.#at = 0
    return batch
  }

  /** Takes the memory of a batch that was written, to use it again: the garbage collector would let much of it come together. */
  reuse(memory: ArrayBuffer): void {
    if (this.#spares.length < spares.count && memory.byteLength <= spares.bytes) this.#spares.push(memory)
    else memory.transfer(0)
  }

  /** Forgets what was written since the last batch was taken. */
  discard(): void {
    this.#at = 0
  }

  #start(operation: number, bytes: number): void {
    const needed = this.#at + bytes
    if (needed > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2))
      grown.set(this.#buffer.subarray(0, this.#at))
      this.#buffer = grown
    }
    this.#buffer[this.#at++] = operation
  }

  #number(value: number): void {
    this.#at = this.#buffer.writeDoubleLE(value, this.#at)
  }

  #length(value: number): void {
    this.#at = this.#buffer.writeUInt32LE(value, this.#at)
  }

  #id(value: bigint): void {
    this.#at = this.#buffer.writeBigInt64LE(value, this.#at)
  }
}

/** Hands the operations of a batch to `sink`; keys and values are views of the batch. */
export function readBatch(batch: Uint8Array, sink: BatchSink): void {
  const buffer = Buffer.from(batch.buffer, batch.byteOffset, batch.byteLength)
  let at = 0
  const number = (): number => buffer.readDoubleLE((at += 8) - 8)
  const length = (): number => buffer.readUInt32LE((at += 4) - 4)
  const id = (): bigint => buffer.readBigInt64LE((at += 8) - 8)
  const bytes = (count: number): Buffer => buffer.subarray(at, (at += count))
  while (at < buffer.length) {
    switch (buffer[at++]) {
      case operations.version: {
        const head = {
          seq: number(),
          revision: number(),
          sub: length(),
          createRevision: number(),
          version: number(),
          lease: id(),
          previousSeq: number(),
        }
        const keyLength = length()
        const valueLength = length()
        sink.version({ ...head, key: bytes(keyLength) }, bytes(valueLength))
        break
      }
      case operations.lease:
        sink.lease({ id: id(), ttlSeconds: number() })
        break
      case operations.endLease:
        sink.endLease(id())
        break
      case operations.meta: {
        const name = metaNames[buffer[at++] as number]
        assert(name !== undefined, 'unknown name in a batch')
        sink.meta(name, bytes(length()).toString('latin1'))
        break
      }
      case operations.forget:
        sink.forget(number())
        break
      default:
        assert(false, `unknown operation in a batch at ${at - 1}`)
    }
  }
}
