import type { VersionColumns } from '../log/past-reader.ts'
import { KeyArena, type KeyPart } from './key-arena.ts'
import { Version } from './version.ts'

/** seq, revision, createRevision, version and valueBytes of each. */
const numbersOfOne = 5
const firstVersions = 1024

/**
 * Gathers the versions of many keys as numbers and bytes, and makes them of it in the order of their keys: what lies together in
 * memory then is what is read together.
 */
export class LiveVersions {
  readonly #keys = new KeyArena()
  readonly #leases = new Map<number, bigint>()
  #numbers = new Float64Array(firstVersions * numbersOfOne)

  /** Takes a row of columns. */
  add(columns: VersionColumns, row: number, key: KeyPart): void {
    const place = this.#keys.size
    this.#keys.add(key)
    const at = place * numbersOfOne
    if (at === this.#numbers.length) {
      const numbers = new Float64Array(at * 2)
      numbers.set(this.#numbers)
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

  /** All of them, ascending by key; a key comes twice only if it was taken twice. */
  *sorted(): Generator<Version> {
    for (const place of this.#keys.sorted()) {
      const at = place * numbersOfOne
      yield new Version({
        key: this.#keys.text(place),
        seq: this.#numbers[at] as number,
        revision: this.#numbers[at + 1] as number,
        createRevision: this.#numbers[at + 2] as number,
        version: this.#numbers[at + 3] as number,
        lease: this.#leases.get(place) ?? 0n,
        valueBytes: this.#numbers[at + 4] as number,
        previous: undefined,
        value: undefined,
      })
    }
  }
}
