import type { VersionColumns } from '../log/past-reader.ts'
import { KeyArena, type KeyPart, free } from './key-arena.ts'
import { type PackedVersion, numbersOfOne, unpack } from './key-block.ts'
import { keyOverheadBytes } from './key-index.ts'
import type { Version } from './version.ts'

const firstVersions = 1024

/** Versions that were read of the log, as numbers and bytes outside of the heap until each is made, in whatever order. */
export class GatheredVersions implements Disposable {
  readonly #keys = new KeyArena()
  readonly #leases = new Map<number, bigint>()
  #numbers = new Float64Array(firstVersions * numbersOfOne)

  get size(): number {
    return this.#keys.size
  }

  /** About what an index of them takes in memory. */
  get bytesOfIndex(): number {
    return this.#keys.bytes + this.size * keyOverheadBytes
  }

  /** Takes a row of columns. */
  add(columns: VersionColumns, row: number, key: KeyPart): void {
    const place = this.#keys.size
    this.#keys.add(key)
    const at = place * numbersOfOne
    if (at === this.#numbers.length) {
      const numbers = new Float64Array(at * 2)
      numbers.set(this.#numbers)
      free(this.#numbers)
      this.#numbers = numbers
    }
    this.#numbers[at] = columns.seq[row] as number
    this.#numbers[at + 1] = columns.revision[row] as number
    this.#numbers[at + 2] = columns.createRevision[row] as number
    this.#numbers[at + 3] = columns.version[row] as number
    this.#numbers[at + 4] = columns.valueBytes[row] as number
    const lease = columns.lease[row] as 0 | string
    if (lease !== 0) this.#leases.set(place, BigInt(lease))
  }

  /** The places of all in the order of their keys. What is made so lies together in memory where it is read together. */
  sorted(): Uint32Array {
    return this.#keys.sorted()
  }

  key(place: number): string {
    return this.#keys.text(place)
  }

  /** The version that was added as the `place`th. */
  packed(place: number): PackedVersion {
    return {
      key: this.#keys.part(place),
      numbers: this.#numbers,
      at: place * numbersOfOne,
      lease: this.#leaseOf(place),
    }
  }

  /** The same as an object, with the one before it, whose key it shares. */
  version(place: number, previous?: Version): Version {
    const key = previous?.key ?? this.key(place)
    return unpack(this.#numbers, place * numbersOfOne, { key, lease: this.#leaseOf(place), previous })
  }

  #leaseOf(place: number): bigint {
    return this.#leases.get(place) ?? 0n
  }

  [Symbol.dispose](): void {
    this.#keys[Symbol.dispose]()
    free(this.#numbers)
  }
}
