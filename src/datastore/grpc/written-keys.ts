import type { KeyRange } from '../mvcc/key-range.ts'

/** Keys from `start` on and below `end`. */
interface Interval {
  readonly start: string
  end: string
}

/**
 * What a list of operations writes. Two of them are joined at the cost of the smaller one, and a key is looked up in
 * the logarithm of their number: a request of a megabyte has a hundred thousand of them.
 */
export class WrittenKeys {
  #puts = new Set<string>()
  /** Sorted and disjoint in themselves, each less than half as long as the one before it. */
  #deletes: Interval[][] = []

  constructor(deletes: readonly KeyRange[]) {
    this.#addRun(disjoint(deletes.map(intervalOf)))
  }

  /** Whether one of the other's puts is among what is put or deleted here. */
  clashesWithPutsOf(other: WrittenKeys): boolean {
    const [few, many] =
      other.#puts.size < this.#puts.size ? [other.#puts, this.#puts] : [this.#puts, other.#puts]
    for (const key of few) if (many.has(key)) return true
    if (this.#deletes.length === 0) return false
    for (const key of other.#puts) if (this.#isDeleted(key)) return true
    return false
  }

  /** Takes over what the other one has, which must not be used any more. */
  join(other: WrittenKeys): void {
    if (other.#puts.size > this.#puts.size) [this.#puts, other.#puts] = [other.#puts, this.#puts]
    for (const key of other.#puts) this.#puts.add(key)
    for (const run of other.#deletes) this.#addRun(run)
  }

  /** False when the key is put or deleted already. */
  put(key: string): boolean {
    if (this.#puts.has(key) || this.#isDeleted(key)) return false
    this.#puts.add(key)
    return true
  }

  #isDeleted(key: string): boolean {
    return this.#deletes.some((run) => hasKey(run, key))
  }

  #addRun(run: Interval[]): void {
    let added = run
    for (;;) {
      const last = this.#deletes.at(-1)
      if (added.length === 0 || last === undefined || last.length >= 2 * added.length) break
      this.#deletes.pop()
      added = disjoint([...last, ...added])
    }
    if (added.length > 0) this.#deletes.push(added)
  }
}

/** As etcd compares here: an end of '\0' is a key like any other (api/v3rpc/key.go, checkIntervals). */
function intervalOf({ key, end }: KeyRange): Interval {
  // Nothing lies between a key and itself with a zero byte behind it.
  return { start: key, end: end === '' ? `${key}\0` : end }
}

function disjoint(intervals: readonly Interval[]): Interval[] {
  const sorted = intervals
    .filter(({ start, end }) => start < end)
    .sort((one, other) => (one.start < other.start ? -1 : one.start > other.start ? 1 : 0))
  const merged: Interval[] = []
  for (const { start, end } of sorted) {
    const last = merged.at(-1)
    if (last === undefined || last.end < start) merged.push({ start, end })
    else if (last.end < end) last.end = end
  }
  return merged
}

function hasKey(run: readonly Interval[], key: string): boolean {
  let low = 0
  let high = run.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((run[middle] as Interval).start <= key) low = middle + 1
    else high = middle
  }
  return low > 0 && key < (run[low - 1] as Interval).end
}
