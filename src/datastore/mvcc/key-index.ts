import { type KeyRange, limitOf } from './key-range.ts'
import type { Version } from './version.ts'

/** What a key takes beside its characters: its newest version, and its place. */
export const keyOverheadBytes = 200
/** A block that grows beyond this is split in two. */
const blockLimit = 512
/** Keys that ascend (events, a load from disk) leave blocks of this size behind them. */
const fullBlock = blockLimit - blockLimit / 8

interface Block {
  /** Ascending, never empty: a search looks at nothing else. */
  readonly keys: string[]
  /** Of these keys. */
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
  /** The first key of each. */
  readonly #firsts: string[] = []
  /** Block and place where a key was looked for last: whoever changes a key has looked at it before. */
  #at = 0
  #place = 0
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
    const known = this.#blocks[this.#at]
    if (known?.keys[this.#place] === key) return known.versions[this.#place]
    this.#at = this.#blockOf(key)
    const block = this.#blocks[this.#at]
    if (block === undefined) return undefined
    this.#place = lowerBound(block.keys, key)
    return block.keys[this.#place] === key ? block.versions[this.#place] : undefined
  }

  /** Makes `version` its key's newest; returns the one that it replaces. */
  set(version: Version): Version | undefined {
    const replaced = this.get(version.key)
    const at = this.#at
    const block = this.#blocks[at]
    const live = version.isTombstone ? 0 : 1
    if (block === undefined) {
      this.#append(version, live)
      return undefined
    }
    if (replaced !== undefined) {
      block.versions[this.#place] = version
      block.live += live - (replaced.isTombstone ? 0 : 1)
      return replaced
    }
    block.keys.splice(this.#place, 0, version.key)
    block.versions.splice(this.#place, 0, version)
    if (this.#place === 0) this.#firsts[at] = version.key
    block.live += live
    this.#size++
    this.#keyBytes += version.key.length
    if (block.keys.length > blockLimit) this.#split(at)
    return undefined
  }

  /** As `set`, in a moment for a version whose key is behind all others, as each of a start's is. */
  append(version: Version): void {
    const block = this.#blocks.at(-1)
    const live = version.isTombstone ? 0 : 1
    if (block !== undefined && (block.keys.at(-1) as string) >= version.key) {
      this.set(version)
      return
    }
    if (block === undefined || block.keys.length >= fullBlock) return this.#append(version, live)
    block.keys.push(version.key)
    block.versions.push(version)
    block.live += live
    this.#size++
    this.#keyBytes += version.key.length
  }

  remove(key: string): void {
    const removed = this.get(key)
    if (removed === undefined) return
    const at = this.#at
    const block = this.#blocks[at] as Block
    block.keys.splice(this.#place, 1)
    block.versions.splice(this.#place, 1)
    if (!removed.isTombstone) block.live--
    this.#size--
    this.#keyBytes -= key.length
    if (block.keys.length === 0) {
      this.#blocks.splice(at, 1)
      this.#firsts.splice(at, 1)
    } else if (this.#place === 0) this.#firsts[at] = block.keys[0] as string
  }

  clear(): void {
    this.#blocks.length = 0
    this.#firsts.length = 0
    this.#size = 0
    this.#keyBytes = 0
  }

  /** Visits the newest versions of the range in the order of their keys until `visit` returns false. */
  walk(range: KeyRange, visit: (version: Version) => boolean): void {
    const limit = limitOf(range)
    let at = this.#blockOf(range.key)
    let place = at < this.#blocks.length ? lowerBound((this.#blocks[at] as Block).keys, range.key) : 0
    for (; at < this.#blocks.length; at++, place = 0) {
      const { keys, versions } = this.#blocks[at] as Block
      for (; place < keys.length; place++) {
        if (limit !== undefined && (keys[place] as string) >= limit) return
        if (!visit(versions[place] as Version)) return
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
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as Block).keys.length
    const block = this.#blocks[whole]
    return block === undefined ? count : count + lowerBound(block.keys, key)
  }

  /** How many keys before `key` exist; all of them when it is undefined. */
  #liveBefore(key: string | undefined): number {
    const whole = key === undefined ? this.#blocks.length : this.#blockOf(key)
    let count = 0
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as Block).live
    const block = this.#blocks[whole]
    if (key === undefined || block === undefined) return count
    for (let place = lowerBound(block.keys, key) - 1; place >= 0; place--) {
      if (!(block.versions[place] as Version).isTombstone) count++
    }
    return count
  }

  /** The block that has the key or would get it: the last one that starts at or before it. */
  #blockOf(key: string): number {
    let low = 0
    let high = this.#firsts.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#firsts[middle] as string) <= key) low = middle + 1
      else high = middle
    }
    return Math.max(0, low - 1)
  }

  #append(version: Version, live: number): void {
    this.#blocks.push({ keys: [version.key], versions: [version], live })
    this.#firsts.push(version.key)
    this.#size++
    this.#keyBytes += version.key.length
  }

  #split(at: number): void {
    const block = this.#blocks[at] as Block
    const isLastBlock = at === this.#blocks.length - 1
    const keep = isLastBlock ? fullBlock : blockLimit / 2
    const keys = block.keys.splice(keep)
    const versions = block.versions.splice(keep)
    const live = versions.reduce((count, version) => count + (version.isTombstone ? 0 : 1), 0)
    block.live -= live
    this.#blocks.splice(at + 1, 0, { keys, versions, live })
    this.#firsts.splice(at + 1, 0, keys[0] as string)
  }
}

/** The place of the first key that is not before `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0
  let high = keys.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((keys[middle] as string) < key) low = middle + 1
    else high = middle
  }
  return low
}
