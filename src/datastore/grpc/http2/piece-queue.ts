/** What a piece costs beside its bytes. */
const pieceOverheadBytes = 256
/** With this many gone from the front, the rest is moved there: taking one off must not cost as much as all. */
const compactFrom = 1024

/** The pieces that a stream has not sent yet: a million of them are as quick as a few. */
export class PieceQueue {
  #pieces: Buffer[] = []
  #first = 0
  #bytes = 0

  get isEmpty(): boolean {
    return this.#first === this.#pieces.length
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Of the bytes and of what keeps them. */
  get costBytes(): number {
    return this.#bytes + (this.#pieces.length - this.#first) * pieceOverheadBytes
  }

  get head(): Buffer {
    return this.#pieces[this.#first] as Buffer
  }

  push(piece: Buffer): void {
    this.#pieces.push(piece)
    this.#bytes += piece.length
  }

  /** Takes bytes off the head, which goes when none are left of it. */
  take(bytes: number): void {
    const { head } = this
    this.#bytes -= bytes
    if (bytes < head.length) {
      this.#pieces[this.#first] = head.subarray(bytes)
      return
    }
    this.#first++
    if (this.isEmpty) this.clear()
    else if (this.#first >= compactFrom && this.#first * 2 >= this.#pieces.length) {
      this.#pieces = this.#pieces.slice(this.#first)
      this.#first = 0
    }
  }

  clear(): void {
    this.#pieces = []
    this.#first = 0
    this.#bytes = 0
  }
}
