import { type KeyRange, limitOf } from './key-range.ts'
import type { Version } from './version.ts'

/** What a key takes beside its characters: its newest version, and its place. */
const keyOverheadBytes = 200
/** A block that grows beyond this is split in two. */
const blockLimit = 512

interface Block {
  /** Ascending by key, never empty. */
  readonly versions: Version[]
  /** How many of them are no tombstones. */
  live: number
}

/**
 * The newest version of each key, in order: blocks of versions, so that an insertion moves few of
 * them and a count adds up whole blocks. Tombstones stay until compaction removes them.
 */
export class KeyIndex {
  readonly #blocks: Block[] = []
  #size = 0
  #keyBytes = 0

  /** How many keys there are, tombstones included. */
  get size(): number {
    return this.#size
  }

  /** About what it takes in memory. */
  get bytes(): number {
    return this.#keyBytes + this.#size * keyOverheadBytes
  }

  get(key: string): Version | undefined {
    const block = this.#blocks[this.#blockOf(key)]
    if (block === undefined) return undefined
    const version = block.versions[lowerBound(block.versions, key)]
    return version !== undefined && version.key === key ? version : undefined
  }

  /** Makes `version` its key's newest; returns the one that it replaces. */
  set(version: Version): Version | undefined {
    const at = this.#blockOf(version.key)
    const block = this.#blocks[at]
    const live = version.isTombstone ? 0 : 1
    if (block === undefined) {
      this.#append(version, live)
      return undefined
    }
    const { versions } = block
    const place = lowerBound(versions, version.key)
    const replaced = versions[place]
    if (replaced !== undefined && replaced.key === version.key) {
      versions[place] = version
      block.live += live - (replaced.isTombstone ? 0 : 1)
      return replaced
    }
    versions.splice(place, 0, version)
    block.live += live
    this.#size++
    this.#keyBytes += version.key.length
    if (versions.length > blockLimit) this.#split(at)
    return undefined
  }

  remove(key: string): void {
    const at = this.#blockOf(key)
    const block = this.#blocks[at]
    if (block === undefined) return
    const place = lowerBound(block.versions, key)
    const version = block.versions[place]
    if (version === undefined || version.key !== key) return
    block.versions.splice(place, 1)
    if (!version.isTombstone) block.live--
    this.#size--
    this.#keyBytes -= key.length
    if (block.versions.length === 0) this.#blocks.splice(at, 1)
  }

  clear(): void {
    this.#blocks.length = 0
    this.#size = 0
    this.#keyBytes = 0
  }

  /** Visits the newest versions of the range in the order of their keys until `visit` returns false. */
  walk(range: KeyRange, visit: (version: Version) => boolean): void {
    const limit = limitOf(range)
    let at = this.#blockOf(range.key)
    let place = at < this.#blocks.length ? lowerBound((this.#blocks[at] as Block).versions, range.key) : 0
    for (; at < this.#blocks.length; at++, place = 0) {
      const { versions } = this.#blocks[at] as Block
      for (; place < versions.length; place++) {
        const version = versions[place] as Version
        if (limit !== undefined && version.key >= limit) return
        if (!visit(version)) return
      }
    }
  }

  /** How many keys of the range exist now. */
  countLive(range: KeyRange): number {
    const limit = limitOf(range)
    const count = this.#liveBefore(limit) - this.#liveBefore(range.key)
    return Math.max(0, count)
  }

  /** How many keys of the range there are, tombstones included: what a walk goes through. */
  countAll(range: KeyRange): number {
    const limit = limitOf(range)
    return Math.max(0, this.#placesBefore(limit) - this.#placesBefore(range.key))
  }

  #placesBefore(key: string | undefined): number {
    if (key === undefined) return this.#size
    const whole = this.#blockOf(key)
    let count = 0
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as Block).versions.length
    const block = this.#blocks[whole]
    return block === undefined ? count : count + lowerBound(block.versions, key)
  }

  /** How many keys before `key` exist; all of them when it is undefined. */
  #liveBefore(key: string | undefined): number {
    const whole = key === undefined ? this.#blocks.length : this.#blockOf(key)
    let count = 0
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as Block).live
    const block = this.#blocks[whole]
    if (key === undefined || block === undefined) return count
    const { versions } = block
    for (let place = lowerBound(versions, key) - 1; place >= 0; place--) {
      if (!(versions[place] as Version).isTombstone) count++
    }
    return count
  }

  /** The block that has the key or would get it: the last one that starts at or before it. */
  #blockOf(key: string): number {
    let low = 0
    let high = this.#blocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (((this.#blocks[middle] as Block).versions[0] as Version).key <= key) low = middle + 1
      else high = middle
    }
    return Math.max(0, low - 1)
  }

  #append(version: Version, live: number): void {
    this.#blocks.push({ versions: [version], live })
    this.#size++
    this.#keyBytes += version.key.length
  }

  #split(at: number): void {
    const block = this.#blocks[at] as Block
    // Keys that ascend (events, a load from disk) leave full blocks behind them.
    const isLastBlock = at === this.#blocks.length - 1
    const keep = isLastBlock ? blockLimit - blockLimit / 8 : blockLimit / 2
    const moved = block.versions.splice(keep)
    const movedLive = moved.reduce((count, version) => count + (version.isTombstone ? 0 : 1), 0)
    block.live -= movedLive
    this.#blocks.splice(at + 1, 0, { versions: moved, live: movedLive })
  }
}

/** The place of the first version whose key is not before `key`. */
function lowerBound(versions: readonly Version[], key: string): number {
  let low = 0
  let high = versions.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((versions[middle] as Version).key < key) low = middle + 1
    else high = middle
  }
  return low
}
