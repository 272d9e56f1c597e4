import type { Version } from './version.ts'

/** Dropped places at the front are given back when they are this many and most of the array. */
const reclaimAt = 1024

/** Every version since the compacted revision, in the order of the log. */
export class History {
  #versions: Version[] = []
  #start = 0

  get size(): number {
    return this.#versions.length - this.#start
  }

  push(version: Version): void {
    this.#versions.push(version)
  }

  clear(): void {
    this.#versions = []
    this.#start = 0
  }

  /** The place of the first version at or after `revision`; places stay valid until `dropBefore`. */
  placeOf(revision: number): number {
    let low = this.#start
    let high = this.#versions.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#versions[middle] as Version).revision < revision) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The version at a place; undefined behind the newest. */
  at(place: number): Version | undefined {
    return this.#versions[place]
  }

  /** Removes and returns up to `limit` of the oldest versions before `revision`. */
  takeBefore(revision: number, limit: number): Version[] {
    const end = Math.min(this.placeOf(revision), this.#start + limit)
    const taken = this.#versions.slice(this.#start, end)
    this.#versions.fill(undefined as unknown as Version, this.#start, end)
    this.#start = end
    if (this.#start >= reclaimAt && this.#start * 2 >= this.#versions.length) {
      this.#versions = this.#versions.slice(this.#start)
      this.#start = 0
    }
    return taken
  }
}
