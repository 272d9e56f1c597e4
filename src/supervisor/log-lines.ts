/** Longer lines are cut here, in bytes: a component that prints a whole object must not fill the memory. */
const lineLengthLimit = 16 * 1024

/** How many lines of a process are kept for the message of its failure. */
const lastLinesLimit = 100

const newline = 0x0a
const carriageReturn = 0x0d

/** Makes lines of what a pipe delivers. Holds at most one line of lineLengthLimit. */
export class LineSplitter {
  readonly #onLine: (line: string) => void
  readonly #lengthLimit: number
  #rest: Buffer[] = []
  #restLength = 0
  #cutLength = 0

  constructor(onLine: (line: string) => void, lengthLimit = lineLengthLimit) {
    this.#onLine = onLine
    this.#lengthLimit = lengthLimit
  }

  push(chunk: Buffer): void {
    let start = 0
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      this.#keep(chunk.subarray(start, end))
      this.#flush()
      start = end + 1
    }
    this.#keep(chunk.subarray(start))
  }

  /** The last line may lack its newline. */
  end(): void {
    if (this.#restLength > 0) this.#flush()
  }

  #keep(part: Buffer): void {
    const kept = part.subarray(0, this.#lengthLimit - this.#restLength)
    // A copy: the chunk, which is as large as the pipe's buffer, is not held by a part of it.
    if (kept.length > 0) this.#rest.push(Buffer.from(kept))
    this.#restLength += kept.length
    this.#cutLength += part.length - kept.length
  }

  #flush(): void {
    let line = this.#rest.length === 1 ? this.#rest[0]! : Buffer.concat(this.#rest)
    if (line.at(-1) === carriageReturn) line = line.subarray(0, -1)
    const cut = this.#cutLength > 0 ? ` [cut: ${this.#cutLength} more bytes]` : ''
    this.#rest = []
    this.#restLength = 0
    this.#cutLength = 0
    this.#onLine(printable(line.toString('utf8')) + cut)
  }
}

// oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal
const controlCharacters = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g

/** What a child prints may come from a user of the cluster: it must not drive the terminal of the operator. */
export function printable(line: string): string {
  return line.replace(
    controlCharacters,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
}

/** The last lines, oldest first. */
export class LastLines {
  readonly #limit: number
  readonly #lines: string[] = []
  #oldest = 0

  constructor(limit = lastLinesLimit) {
    this.#limit = limit
  }

  push(line: string): void {
    if (this.#lines.length < this.#limit) {
      this.#lines.push(line)
      return
    }
    this.#lines[this.#oldest] = line
    this.#oldest = (this.#oldest + 1) % this.#limit
  }

  /** All that are kept, or the last `count` of them. */
  list(count = this.#limit): string[] {
    return [...this.#lines.slice(this.#oldest), ...this.#lines.slice(0, this.#oldest)].slice(-count)
  }
}

/** A token bucket: `perSecond` on average, `burst` at once. */
export class RateLimit {
  readonly #perMs: number
  readonly #burst: number
  readonly #nowMs: () => number
  #tokens: number
  #countedAtMs: number

  constructor({ perSecond, burst, nowMs }: { perSecond: number; burst: number; nowMs: () => number }) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#nowMs = nowMs
    this.#tokens = burst
    this.#countedAtMs = nowMs()
  }

  take(): boolean {
    const nowMs = this.#nowMs()
    this.#tokens = Math.min(this.#burst, this.#tokens + (nowMs - this.#countedAtMs) * this.#perMs)
    this.#countedAtMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
