import { BufferPool } from '../../base/buffer-pool.ts'
import type { Version } from './version.ts'

/** Values lie one behind the other in segments of this size; one of their memory is another's when they are gone. */
const segmentBytes = 256 * 1024
/** A value larger than this has a segment of its own. */
const sharedLimitBytes = 64 * 1024
/** What a value costs beside its bytes: its view, and its places in the segment's list and among all. */
const overheadBytes = 160
/** Segments that wait to be used again. */
const spareSegments = 2

interface Segment {
  readonly memory: Buffer
  /** How many of its bytes are taken. */
  end: number
  /** Of the values in the order in which they were added; some may have been dropped. */
  seqs: number[]
  /** How many of them were not. */
  live: number
  newestRevision: number
}

/**
 * Keeps values in memory, up to a number of bytes: reading one from SQLite takes longer than all the rest that a
 * request for it does. What was written last is kept rather than what was written before; what was read is
 * kept where there is room, so that one pass over a large store drives nothing out. A value that is not on disk yet is never
 * dropped.
 *
 * A buffer for each value would cost its allocation, twice the memory (the allocator's gaps, and what waits for
 * the garbage collector), and a full collection for every few thousand writes. So segments are used again: a view of a value is
 * valid in its turn of the event loop only.
 */
export class ValueCache {
  readonly #limitBytes: () => number
  /** The oldest first; the last one is being filled. */
  readonly #segments: Segment[] = []
  readonly #byMemory = new Map<ArrayBufferLike, Segment>()
  /** By the seq of their version. */
  readonly #views = new Map<number, Uint8Array>()
  readonly #memories = new BufferPool(segmentBytes, spareSegments)
  #bytes = 0

  constructor(limitBytes: () => number) {
    this.#limitBytes = limitBytes
  }

  /** The value of a version that has one which is not empty. */
  get({ seq }: Version): Uint8Array | undefined {
    return this.#views.get(seq)
  }

  /** Copies the value of a version that was just written. */
  add(version: Version, value: Uint8Array, committedRevision: number): void {
    this.#put(version, value)
    while (this.#bytes > this.#limitBytes()) {
      const oldest = this.#segments[0] as Segment
      if (this.#segments.length === 1 || oldest.newestRevision > committedRevision) break
      this.#remove(oldest)
    }
  }

  /** Keeps a copy of the value that was read for a version, if there is room. */
  offer(version: Version, value: Uint8Array): void {
    const segment = this.#segments.at(-1)
    const fits = segment !== undefined && value.length <= roomIn(segment)
    const neededBytes = overheadBytes + (fits ? 0 : Math.max(segmentBytes, value.length))
    if (this.#bytes + neededBytes <= this.#limitBytes()) this.#put(version, value)
  }

  /** Drops the value of a version that nobody will ask for. */
  drop({ seq }: Version): void {
    const view = this.#views.get(seq)
    if (view === undefined) return
    this.#views.delete(seq)
    const segment = this.#byMemory.get(view.buffer) as Segment
    segment.live--
    if (segment.live === 0 && segment !== this.#segments.at(-1)) this.#remove(segment)
  }

  clear(): void {
    for (const segment of [...this.#segments]) this.#remove(segment)
  }

  #put({ seq, revision }: Version, value: Uint8Array): void {
    if (value.length === 0) return
    const segment = this.#segmentFor(value.length)
    const start = segment.end
    segment.end += value.length
    segment.memory.set(value, start)
    this.#views.set(seq, segment.memory.subarray(start, segment.end))
    segment.seqs.push(seq)
    segment.live++
    segment.newestRevision = Math.max(segment.newestRevision, revision)
    this.#bytes += overheadBytes
  }

  #segmentFor(bytes: number): Segment {
    const last = this.#segments.at(-1)
    if (last !== undefined && bytes <= roomIn(last)) return last
    const memory = bytes > sharedLimitBytes ? Buffer.allocUnsafeSlow(bytes) : this.#memories.take()
    const segment = { memory, end: 0, seqs: [], live: 0, newestRevision: 0 }
    this.#segments.push(segment)
    this.#byMemory.set(memory.buffer, segment)
    this.#bytes += memory.length
    return segment
  }

  #remove(segment: Segment): void {
    for (const seq of segment.seqs) {
      if (this.#views.get(seq)?.buffer === segment.memory.buffer) this.#views.delete(seq)
    }
    this.#segments.splice(this.#segments.indexOf(segment), 1)
    this.#byMemory.delete(segment.memory.buffer)
    this.#bytes -= segment.memory.length + overheadBytes * segment.seqs.length
    this.#memories.give(segment.memory)
  }
}

function roomIn({ memory, end }: Segment): number {
  return memory.length - end
}
