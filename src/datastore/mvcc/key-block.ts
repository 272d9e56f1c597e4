import { type KeyPart, free } from './key-arena.ts'
import { Version } from './version.ts'

/** seq, revision, createRevision, version and valueBytes of one version. */
export const numbersOfOne = 5
/** A block with more keys than this is split in two. */
export const blockLimit = 512
/** So is one whose keys take more than this: whatever is inserted moves what is behind it. */
const blockLimitBytes = 256 * 1024
const firstKeyBytes = 4 * 1024
/** Memory for keys beyond this is given back when most of it is free: long keys come and go. */
const keptKeyBytes = 64 * 1024

/** A live version as bytes and numbers: of the numbers it has those from `at` on. */
export interface PackedVersion {
  readonly key: KeyPart
  readonly numbers: Float64Array
  readonly at: number
  readonly lease: bigint
}

/** Makes an object of the numbers. */
export function unpack(
  numbers: Float64Array,
  at: number,
  others: { readonly key: string; readonly lease: bigint; readonly previous: Version | undefined },
): Version {
  return new Version({
    ...{ key: others.key, lease: others.lease, previous: others.previous },
    seq: numbers[at] as number,
    revision: numbers[at + 1] as number,
    createRevision: numbers[at + 2] as number,
    version: numbers[at + 3] as number,
    valueBytes: numbers[at + 4] as number,
  })
}

/**
 * Some keys in their order with the newest version of each. Keys are bytes, and a version of which there is no more to say is a
 * few numbers, both outside of the heap: a million objects and names would be gone through at each collection of garbage,
 * which ends with all requests standing still. Whoever asks for such a version gets an object of his own.
 */
export class KeyBlock {
  #size = 0
  #memory = Buffer.allocUnsafeSlow(firstKeyBytes)
  /** Where each key ends. */
  readonly #ends = new Uint32Array(blockLimit + 1)
  readonly #numbers = new Float64Array((blockLimit + 1) * numbersOfOne)
  /** By the seq of the versions that are numbers: few have one. */
  readonly #leases = new Map<number, bigint>()
  /** Those that are objects: what was before them is known, or they are tombstones. */
  readonly #versions: (Version | undefined)[] = []
  #tombstones = 0

  get size(): number {
    return this.#size
  }

  /** How many are no tombstones. */
  get live(): number {
    return this.#size - this.#tombstones
  }

  get isTooLarge(): boolean {
    return this.#size > blockLimit || (this.#keyBytes > blockLimitBytes && this.#size > 1)
  }

  get #keyBytes(): number {
    return this.#startOf(this.#size)
  }

  key(place: number): string {
    return this.#memory.toString('latin1', this.#startOf(place), this.#ends[place])
  }

  /** Whether the key at a place, where there need not be one, is this one. */
  has(place: number, key: string): boolean {
    if (place >= this.#size) return false
    const start = this.#startOf(place)
    const isAsLong = (this.#ends[place] as number) - start === key.length
    return isAsLong && sameBytes(key, this.#memory, start, 0) === key.length
  }

  /** Whether the key, bytes in some memory, is after all of these. */
  isBefore({ memory, start, end }: KeyPart): boolean {
    return this.#memory.compare(memory, start, end, this.#startOf(this.#size - 1), this.#keyBytes) < 0
  }

  /** The place of the first key that is not before this one. */
  placeOf(key: string): number {
    const memory = this.#memory
    let low = 0
    let high = this.#size
    // What the keys before `low` and from `high` on begin with as this one does, all between them do, too.
    let lowSame = 0
    let highSame = 0
    while (low < high) {
      const middle = (low + high) >>> 1
      const start = this.#startOf(middle)
      const length = (this.#ends[middle] as number) - start
      const same = sameBytes(key, memory, start, Math.min(lowSame, highSame), length)
      const isBefore =
        same < length
          ? same < key.length && (memory[start + same] as number) < key.charCodeAt(same)
          : same < key.length
      if (isBefore) {
        low = middle + 1
        lowSame = same
      } else {
        high = middle
        highSame = same
      }
    }
    return low
  }

  /** How many before a place are no tombstones. */
  liveBefore(place: number): number {
    let live = place
    for (let at = 0; at < place && this.#tombstones > 0; at++) if (this.#isTombstone(at)) live--
    return live
  }

  /** The version at a place; `key` is its key, where that is at hand. */
  at(place: number, key?: string): Version {
    const version = this.#versions[place]
    if (version !== undefined) return version
    const at = place * numbersOfOne
    const lease = this.#leases.get(this.#numbers[at] as number) ?? 0n
    return unpack(this.#numbers, at, { key: key ?? this.key(place), lease, previous: undefined })
  }

  /** Visits those that have a lease. */
  visitLeased(visit: (version: Version) => void): void {
    for (let place = 0; place < this.#size; place++) {
      const version = this.#versions[place]
      const isLeased =
        version === undefined
          ? this.#leases.size > 0 && this.#leases.has(this.#numbers[place * numbersOfOne] as number)
          : version.lease !== 0n
      if (isLeased) visit(this.at(place))
    }
  }

  insert(place: number, version: Version): void {
    const { key } = version
    const start = this.#startOf(place)
    this.#reserve(key.length)
    this.#memory.copyWithin(start + key.length, start, this.#keyBytes)
    this.#memory.write(key, start, key.length, 'latin1')
    for (let at = this.#size; at > place; at--) this.#ends[at] = (this.#ends[at - 1] as number) + key.length
    this.#ends[place] = start + key.length
    this.#numbers.copyWithin((place + 1) * numbersOfOne, place * numbersOfOne, this.#size * numbersOfOne)
    this.#versions.splice(place, 0, version)
    this.#size++
    if (version.isTombstone) this.#tombstones++
  }

  /** Adds what is after all of these. */
  append({ key, numbers, at, lease }: PackedVersion): void {
    const start = this.#keyBytes
    this.#reserve(key.end - key.start)
    this.#ends[this.#size] = start + key.memory.copy(this.#memory, start, key.start, key.end)
    const target = this.#size * numbersOfOne
    for (let offset = 0; offset < numbersOfOne; offset++) {
      this.#numbers[target + offset] = numbers[at + offset] as number
    }
    if (lease !== 0n) this.#leases.set(numbers[at] as number, lease)
    this.#versions.push(undefined)
    this.#size++
  }

  /** Puts another version of its key into a place. */
  replace(place: number, version: Version): void {
    this.#leave(place)
    this.#versions[place] = version
    if (version.isTombstone) this.#tombstones++
  }

  /** Keeps only numbers of a live version. */
  pack(place: number): void {
    const version = this.#versions[place]
    if (version === undefined) return
    const at = place * numbersOfOne
    this.#numbers[at] = version.seq
    this.#numbers[at + 1] = version.revision
    this.#numbers[at + 2] = version.createRevision
    this.#numbers[at + 3] = version.version
    this.#numbers[at + 4] = version.valueBytes
    if (version.lease !== 0n) this.#leases.set(version.seq, version.lease)
    this.#versions[place] = undefined
  }

  remove(place: number): void {
    this.#leave(place)
    const start = this.#startOf(place)
    const bytes = (this.#ends[place] as number) - start
    this.#memory.copyWithin(start, start + bytes, this.#keyBytes)
    this.#size--
    for (let at = place; at < this.#size; at++) this.#ends[at] = (this.#ends[at + 1] as number) - bytes
    this.#numbers.copyWithin(
      place * numbersOfOne,
      (place + 1) * numbersOfOne,
      (this.#size + 1) * numbersOfOne,
    )
    this.#versions.splice(place, 1)
    this.#shrink()
  }

  /** Moves those from a place on into a block of their own. */
  split(place: number): KeyBlock {
    const other = new KeyBlock()
    const start = this.#startOf(place)
    other.#reserve(this.#keyBytes - start)
    this.#memory.copy(other.#memory, 0, start, this.#keyBytes)
    for (let at = place; at < this.#size; at++) other.#ends[at - place] = (this.#ends[at] as number) - start
    other.#numbers.set(this.#numbers.subarray(place * numbersOfOne, this.#size * numbersOfOne))
    for (const version of this.#versions.splice(place)) {
      if (version?.isTombstone === true) other.#tombstones++
      other.#versions.push(version)
    }
    other.#size = this.#size - place
    this.#size = place
    this.#tombstones -= other.#tombstones
    for (let at = 0; at < other.#size; at++) this.#moveLease(other, at)
    this.#shrink()
    return other
  }

  /** Gives its memory back. */
  [Symbol.dispose](): void {
    for (const memory of [this.#memory, this.#ends, this.#numbers]) free(memory)
  }

  #startOf(place: number): number {
    return place === 0 ? 0 : (this.#ends[place - 1] as number)
  }

  /** Of the version at a place in another block. */
  #moveLease(other: KeyBlock, place: number): void {
    if (other.#versions[place] !== undefined) return
    const seq = other.#numbers[place * numbersOfOne] as number
    const lease = this.#leases.get(seq)
    if (lease === undefined) return
    other.#leases.set(seq, lease)
    this.#leases.delete(seq)
  }

  #isTombstone(place: number): boolean {
    return this.#versions[place]?.isTombstone === true
  }

  /** The version at a place will not be there any more. */
  #leave(place: number): void {
    if (this.#versions[place] === undefined)
      this.#leases.delete(this.#numbers[place * numbersOfOne] as number)
    else if (this.#isTombstone(place)) this.#tombstones--
  }

  #reserve(bytes: number): void {
    const needed = this.#keyBytes + bytes
    if (needed > this.#memory.length) this.#resize(Math.max(needed, this.#memory.length * 2))
  }

  #shrink(): void {
    const { length } = this.#memory
    if (length > keptKeyBytes && this.#keyBytes < length / 4) this.#resize(length / 2)
  }

  #resize(bytes: number): void {
    const memory = Buffer.allocUnsafeSlow(Math.ceil(bytes))
    this.#memory.copy(memory, 0, 0, this.#keyBytes)
    free(this.#memory)
    this.#memory = memory
  }
}

/** How many bytes a key begins with as `length` bytes in a memory do; those before `from` are known to be the same. */
function sameBytes(key: string, memory: Buffer, start: number, from: number, length = key.length): number {
  const most = Math.min(key.length, length)
  let at = from
  while (at < most && memory[start + at] === key.charCodeAt(at)) at++
  return at
}
