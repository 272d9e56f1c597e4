import type { Version } from './version.ts'

/** Dropped places at the front are given back when they are this many and most of the array. */
const reclaimAt = 1024
/** What a version takes beside its key: itself, its place, and the version before it, which it keeps. */
export const versionBytes = 320

/**
 * The newest versions, in the order of the log: all those after a revision, the floor. Each has the state before it at
 * hand. What is older is in the log alone.
 */
export class History {
  #versions: Version[] = []
  #start = 0
  #bytes = 0
  #floor = 0

  get size(): number {
    return this.#versions.length - this.#start
  }

  /** The place behind the newest. */
  get end(): number {
    return this.#versions.length
  }

  /** About what it takes in memory. */
  get bytes(): number {
    return this.#bytes
  }

  /** Every version of a later revision is here, and none of this one or before. */
  get floor(): number {
    return this.#floor
  }

  push(version: Version): void {
    this.#versions.push(version)
    this.#bytes += bytesOf(version)
  }

  /** Starts anew: what follows is after the floor. */
  clear(floor: number): void {
    this.#versions = []
    this.#start = 0
    this.#bytes = 0
    this.#floor = floor
  }

  /** The place of the first version at or after `revision`; places stay valid until something is taken. */
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

  /** Infinite when there is none. */
  get oldestRevision(): number {
    return this.#versions[this.#start]?.revision ?? Number.POSITIVE_INFINITY
  }

  /** Removes and returns the versions of the oldest revision, which becomes the floor. */
  takeOldest(): Version[] {
    const revision = this.oldestRevision
    let end = this.#start
    while (this.#versions[end]?.revision === revision) end++
    const taken = this.#versions.slice(this.#start, end)
    for (const version of taken) this.#bytes -= bytesOf(version)
    this.#versions.fill(undefined as unknown as Version, this.#start, end)
    this.#start = end
    if (taken.length > 0) this.#floor = revision
    if (this.#start >= reclaimAt && this.#start * 2 >= this.#versions.length) {
      this.#versions = this.#versions.slice(this.#start)
      this.#start = 0
    }
    return taken
  }

  /** Where nothing older is left, the floor can be raised: nothing has happened up to there. */
  raiseFloor(revision: number): void {
    if (revision > this.#floor && this.oldestRevision > revision) this.#floor = revision
  }

  /** Removes and returns the versions after a revision, the newest first. */
  takeAfter(revision: number): Version[] {
    const taken = this.#versions.splice(this.placeOf(revision + 1)).reverse()
    for (const version of taken) this.#bytes -= bytesOf(version)
    return taken
  }
}

function bytesOf({ key }: Version): number {
  return versionBytes + key.length
}
