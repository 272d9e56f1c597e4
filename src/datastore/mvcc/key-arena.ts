const firstBytes = 64 * 1024
const firstKeys = 1024
/** So many bytes of a key are compared at a time, as a number, with how many there were: 51 bits. */
const digitBytes = 6
const digitBase = 8
/** Fewer keys than these are sorted by insertion. */
const smallSort = 16

/** Some of the places, whose keys share their first `depth` bytes; `isRead` says that the digits are those at that depth. */
interface Part {
  readonly from: number
  readonly to: number
  readonly depth: number
  readonly isRead: boolean
}

/** Where a key is in some memory. */
export interface KeyPart {
  readonly memory: Buffer
  readonly start: number
  readonly end: number
}

/**
 * Many keys, one behind the other in one memory, to be brought into their order. As strings they would be compared by what they
 * begin with, which most of them share, again and again; here each byte is looked at once or twice.
 */
export class KeyArena implements Disposable {
  #memory = Buffer.allocUnsafeSlow(firstBytes)
  /** Where each key begins; the last one ends where the next one would begin. */
  #starts = new Float64Array(firstKeys)
  #size = 0
  #places = new Uint32Array()
  /** The next bytes of the key of each place. */
  #digits = new Float64Array()

  get size(): number {
    return this.#size
  }

  /** Of all keys together. */
  get bytes(): number {
    return this.#starts[this.#size] as number
  }

  add({ memory, start: from, end: to }: KeyPart): void {
    const start = this.#starts[this.#size] as number
    const end = start + to - from
    if (end > this.#memory.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(end, this.#memory.length * 2))
      this.#memory.copy(larger, 0, 0, start)
      free(this.#memory)
      this.#memory = larger
    }
    if (this.#size + 2 > this.#starts.length) {
      const starts = new Float64Array(this.#starts.length * 2)
      starts.set(this.#starts)
      free(this.#starts)
      this.#starts = starts
    }
    memory.copy(this.#memory, start, from, to)
    this.#starts[++this.#size] = end
  }

  /** The key that was added as the `place`th, as versions have it. */
  text(place: number): string {
    return this.#memory.toString('latin1', this.#starts[place], this.#starts[place + 1])
  }

  /** The same as bytes. */
  part(place: number): KeyPart {
    return {
      memory: this.#memory,
      start: this.#starts[place] as number,
      end: this.#starts[place + 1] as number,
    }
  }

  /** The places of all keys in the order of the keys. */
  sorted(): Uint32Array {
    this.#places = Uint32Array.from({ length: this.#size }, (_, place) => place)
    this.#digits = new Float64Array(this.#size)
    this.#sort({ from: 0, to: this.#size, depth: 0, isRead: false })
    free(this.#digits)
    return this.#places
  }

  /** Gives the memory back: nothing of it can be read any more. */
  [Symbol.dispose](): void {
    for (const memory of [this.#memory, this.#starts, this.#places]) free(memory)
  }

  /**
   * Sorts into those whose next bytes are before, the same as and after those of one of them (multikey quicksort). The largest part
   * goes on here, so that there are never many calls at a time, however long the keys are. Which one decides is left to chance:
   * no order of keys makes it slow.
   */
  #sort(given: Part): void {
    let part = given
    while (part.to - part.from > 1) {
      if (!part.isRead) this.#readDigits(part)
      if (part.to - part.from <= smallSort) return this.#insert(part)
      const { from, to, depth } = part
      const pivot = this.#digits[from + Math.floor(Math.random() * (to - from))] as number
      const { low, high } = this.#partition(part, pivot)
      const before = { from, to: low, depth, isRead: true }
      // Where the keys have ended, they are the same.
      const sameTo = pivot % digitBase === digitBytes ? high : low
      const same = { from: low, to: sameTo, depth: depth + digitBytes, isRead: false }
      const after = { from: high, to, depth, isRead: true }
      part = largerOf(largerOf(before, same), after)
      for (const other of [before, same, after]) {
        if (other !== part && other.to - other.from > 1) this.#sort(other)
      }
    }
  }

  /** Returns where those that are the same begin and end. */
  #partition({ from, to }: Part, pivot: number): { low: number; high: number } {
    const digits = this.#digits
    const places = this.#places
    let [low, at, high] = [from, from, to]
    while (at < high) {
      const digit = digits[at] as number
      if (digit === pivot) {
        at++
        continue
      }
      const target = digit < pivot ? low++ : --high
      const place = places[at] as number
      places[at] = places[target] as number
      digits[at] = digits[target] as number
      places[target] = place
      digits[target] = digit
      if (digit < pivot) at++
    }
    return { low, high }
  }

  #insert({ from, to, depth }: Part): void {
    const digits = this.#digits
    const places = this.#places
    for (let at = from + 1; at < to; at++) {
      const place = places[at] as number
      const digit = digits[at] as number
      let free = at
      for (; free > from; free--) {
        const otherDigit = digits[free - 1] as number
        const other = places[free - 1] as number
        if (digit > otherDigit) break
        if (digit === otherDigit && !this.#isBefore(place, other, depth + digitBytes)) break
        places[free] = other
        digits[free] = otherDigit
      }
      places[free] = place
      digits[free] = digit
    }
  }

  #isBefore(one: number, other: number, depth: number): boolean {
    for (let at = depth; ; at += digitBytes) {
      const digit = this.#digit(one, at)
      const otherDigit = this.#digit(other, at)
      if (digit !== otherDigit || digit === 0) return digit < otherDigit
    }
  }

  #readDigits({ from, to, depth }: Part): void {
    for (let at = from; at < to; at++) this.#digits[at] = this.#digit(this.#places[at] as number, depth)
  }

  /** The key's bytes from a depth on, as a number that ascends with them; what has ended is before what goes on. */
  #digit(place: number, depth: number): number {
    const memory = this.#memory
    const at = (this.#starts[place] as number) + depth
    const left = Math.min(digitBytes, (this.#starts[place + 1] as number) - at)
    if (left <= 0) return 0
    if (left === digitBytes) {
      return (three(memory, at) * 2 ** 24 + three(memory, at + 3)) * digitBase + digitBytes
    }
    let bytes = 0
    for (let offset = 0; offset < digitBytes; offset++) {
      bytes = bytes * 256 + (offset < left ? (memory[at + offset] as number) : 0)
    }
    return bytes * digitBase + left
  }
}

function three(memory: Buffer, at: number): number {
  return ((memory[at] as number) << 16) | ((memory[at + 1] as number) << 8) | (memory[at + 2] as number)
}

/** Gives memory outside of the heap back at once: a heap that hardly grows may not be collected for hours. */
export function free({ buffer }: NodeJS.TypedArray<ArrayBuffer>): void {
  buffer.transfer(0)
}

function largerOf(one: Part, other: Part): Part {
  return other.to - other.from > one.to - one.from ? other : one
}
