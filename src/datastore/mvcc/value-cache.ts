import type { Version } from './version.ts'

/** Versions whose values are gone are taken out of the queue when they are this many and most of it. */
const reclaimAt = 1024
/** What a buffer of its own costs beside its bytes; one from Node's pool would hold the pool's whole page. */
const overheadBytes = 256

/**
 * Keeps values in memory, up to a number of bytes: reading one from SQLite takes longer than all the rest that a
 * request for it does. What was written last is kept rather than what was written before; what was read is
 * kept where there is room, so that one pass over a large store drives nothing out. A value that is not on disk yet is never
 * dropped.
 */
export class ValueCache {
  readonly #limitBytes: number
  /** The oldest first; some have lost their values. */
  #queue: Version[] = []
  #start = 0
  #bytes = 0
  #emptied = 0

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  /** Takes in a version that was just written, with a value of its own. */
  add(version: Version, committedRevision: number): void {
    if (version.value === undefined) return
    this.#push(version, version.value)
    while (this.#bytes > this.#limitBytes) {
      const oldest = this.#queue[this.#start] as Version
      if (oldest.revision > committedRevision) break
      this.#start++
      if (oldest.value === undefined) this.#emptied--
      else this.#empty(oldest)
    }
    this.#reclaim()
  }

  /** Keeps a copy of the value that was read for a version, if there is room. */
  offer(version: Version, value: Uint8Array): void {
    if (this.#bytes + sizeOf(value) > this.#limitBytes) return
    version.value = copyOf(value)
    this.#push(version, value)
  }

  /** Drops the value of a version that nobody will ask for. */
  drop(version: Version): void {
    if (version.value === undefined) return
    this.#empty(version)
    this.#emptied++
    this.#reclaim()
  }

  clear(): void {
    this.#queue = []
    this.#start = 0
    this.#bytes = 0
    this.#emptied = 0
  }

  #push(version: Version, value: Uint8Array): void {
    this.#queue.push(version)
    this.#bytes += sizeOf(value)
  }

  #empty(version: Version): void {
    if (version.value !== undefined) this.#bytes -= sizeOf(version.value)
    version.value = undefined
  }

  #reclaim(): void {
    const unused = this.#start + this.#emptied
    if (unused < reclaimAt || unused * 2 < this.#queue.length) return
    this.#queue = this.#queue.slice(this.#start).filter(({ value }) => value !== undefined)
    this.#start = 0
    this.#emptied = 0
  }
}

function sizeOf(value: Uint8Array): number {
  return value.length + overheadBytes
}

/** A value that holds no other memory than its own. */
export function copyOf(value: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(value.length)
  copy.set(value)
  return copy
}
