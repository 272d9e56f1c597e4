/** Reads exact numbers of bytes from a stream of chunks. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  /** As many bytes as asked for; fewer only at the end. */
  async upTo(bytes: number): Promise<Buffer> {
    const parts = [this.#rest]
    let length = this.#rest.length
    while (length < bytes) {
      const next = await this.#chunks.next()
      if (next.done === true) break
      parts.push(next.value)
      length += next.value.length
    }
    const joined = Buffer.concat(parts, length)
    this.#rest = joined.subarray(bytes)
    return joined.subarray(0, bytes)
  }

  async exactly(bytes: number): Promise<Buffer> {
    const read = await this.upTo(bytes)
    if (read.length < bytes) throw new Error(`it ends ${bytes - read.length} bytes too early`)
    return read
  }
}
