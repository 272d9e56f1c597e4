import type { KeyPart } from './key-arena.ts'
import { KeyBlock, type PackedVersion, blockLimit, unpack } from './key-block.ts'
import { type KeyRange, limitOf } from './key-range.ts'
import type { Version } from './version.ts'

/** What a key takes beside its characters: its newest version as an object, and its place. */
export const keyOverheadBytes = 200
/** Keys that ascend (events, a load from disk) leave blocks of this size behind them. */
const fullBlock = blockLimit - blockLimit / 8

/**
 * The newest version of each key, in order: blocks of versions, so that an insertion moves few of
 * them and a count adds up whole blocks. Tombstones stay until compaction removes them.
 */
export class KeyIndex {
  readonly #blocks: KeyBlock[] = []
  /** The first key of each. */
  readonly #firsts: string[] = []
  /** Block and place where a key was looked for last: whoever changes a key has looked at it before. */
  #at = 0
  #place = 0
  /** What was found there, until something changes. */
  #found: Version | undefined
  #size = 0
  #keyBytes = 0

  /** How many keys there are, tombstones included. */
  get size(): number {
    return this.#size
  }

  /** About what it takes in memory if all of it was changed a moment ago. */
  get bytes(): number {
    return this.#keyBytes + this.#size * keyOverheadBytes
  }

  get(key: string): Version | undefined {
    if (this.#found?.key === key) return this.#found
    this.#at = this.#blockOf(key)
    const block = this.#blocks[this.#at]
    this.#place = block?.placeOf(key) ?? 0
    this.#found = block?.has(this.#place, key) === true ? block.at(this.#place, key) : undefined
    return this.#found
  }

  /** Makes `version` its key's newest; returns the one that it replaces. */
  set(version: Version): Version | undefined {
    const replaced = this.get(version.key)
    const block = this.#blocks[this.#at] ?? this.#addBlock(version.key)
    this.#found = undefined
    if (replaced !== undefined) {
      block.replace(this.#place, version)
      return replaced
    }
    block.insert(this.#place, version)
    if (this.#place === 0) this.#firsts[this.#at] = version.key
    this.#count(version.key.length)
    if (block.isTooLarge) this.#split(this.#at)
    return undefined
  }

  /** Takes a live version whose key is behind all others, as each of a start's is; others as `set` does. */
  append(version: PackedVersion): void {
    const { key, numbers, at, lease } = version
    const last = this.#blocks.at(-1)
    if (last !== undefined && !last.isBefore(key)) {
      this.set(unpack(numbers, at, { key: textOf(key), lease, previous: undefined }))
      return
    }
    this.#found = undefined
    const isFull = last === undefined || last.size >= fullBlock
    const block = isFull ? this.#addBlock(textOf(key)) : last
    block.append(version)
    this.#count(key.end - key.start)
    if (block.isTooLarge) this.#split(this.#blocks.length - 1)
  }

  /** Keeps of a version, if it is its key's newest and live, no more than numbers: what was before it is not asked for any more. */
  pack(version: Version): void {
    if (version.isTombstone || this.get(version.key) !== version) return
    this.#found = undefined
    this.#blocks[this.#at]?.pack(this.#place)
  }

  remove(key: string): void {
    if (this.get(key) === undefined) return
    this.#found = undefined
    const at = this.#at
    const block = this.#blocks[at] as KeyBlock
    block.remove(this.#place)
    this.#size--
    this.#keyBytes -= key.length
    if (block.size === 0) {
      block[Symbol.dispose]()
      this.#blocks.splice(at, 1)
      this.#firsts.splice(at, 1)
    } else if (this.#place === 0) this.#firsts[at] = block.key(0)
  }

  /** Visits the newest versions of the range in the order of their keys until `visit` returns false. */
  walk(range: KeyRange, visit: (version: Version) => boolean): void {
    const limit = limitOf(range)
    let at = this.#blockOf(range.key)
    let place = this.#blocks[at]?.placeOf(range.key) ?? 0
    for (; at < this.#blocks.length; at++, place = 0) {
      const block = this.#blocks[at] as KeyBlock
      const isWhole = limit === undefined || (this.#firsts[at + 1] ?? limit) < limit
      const end = isWhole ? block.size : block.placeOf(limit)
      for (; place < end; place++) if (!visit(block.at(place))) return
      if (!isWhole) return
    }
  }

  /** Visits those that have a lease. */
  visitLeased(visit: (version: Version) => void): void {
    for (const block of this.#blocks) block.visitLeased(visit)
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
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as KeyBlock).size
    return count + (this.#blocks[whole]?.placeOf(key) ?? 0)
  }

  /** How many keys before `key` exist; all of them when it is undefined. */
  #liveBefore(key: string | undefined): number {
    const whole = key === undefined ? this.#blocks.length : this.#blockOf(key)
    let count = 0
    for (let at = 0; at < whole; at++) count += (this.#blocks[at] as KeyBlock).live
    const block = this.#blocks[whole]
    if (key === undefined || block === undefined) return count
    return count + block.liveBefore(block.placeOf(key))
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

  #addBlock(first: string): KeyBlock {
    const block = new KeyBlock()
    this.#blocks.push(block)
    this.#firsts.push(first)
    return block
  }

  #count(keyBytes: number): void {
    this.#size++
    this.#keyBytes += keyBytes
  }

  #split(at: number): void {
    const block = this.#blocks[at] as KeyBlock
    const isLastBlock = at === this.#blocks.length - 1
    const other = block.split(isLastBlock ? Math.min(fullBlock, block.size - 1) : block.size >>> 1)
    this.#blocks.splice(at + 1, 0, other)
    this.#firsts.splice(at + 1, 0, other.key(0))
  }
}

function textOf({ memory, start, end }: KeyPart): string {
  return memory.toString('latin1', start, end)
}
