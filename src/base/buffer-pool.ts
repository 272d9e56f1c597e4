/**
 * Buffers of one size that are used again. The pages of fresh memory would cost more than what is copied into them, and
 * for every few megabytes of buffers that were dropped V8 collects all garbage, which holds requests up for 15 ms.
 */
export class BufferPool {
  readonly bytes: number
  readonly #limit: number
  readonly #kept: Buffer[] = []

  /** Keeps up to `limit` buffers that nobody uses. */
  constructor(bytes: number, limit: number) {
    this.bytes = bytes
    this.#limit = limit
  }

  /** A buffer with whatever contents. */
  take(): Buffer {
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(this.bytes)
  }

  /** Takes back a buffer, or what was cut from one: nobody may hold it any more. One of another size is dropped. */
  give({ buffer }: Buffer): void {
    if (buffer.byteLength === this.bytes && this.#kept.length < this.#limit)
      this.#kept.push(Buffer.from(buffer))
  }
}
