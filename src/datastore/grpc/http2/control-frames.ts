import type { Output } from './output.ts'
import { flags, frameTypes } from './protocol.ts'

/** Writes the frames that carry no call: RFC 9113, section 6. All of them are small. */
export class ControlFrames {
  readonly #output: Output

  constructor(output: Output) {
    this.#output = output
  }

  settings(entries: readonly (readonly [name: number, value: number])[]): void {
    this.#frame(frameTypes.settings, 0, 0, 6 * entries.length)
    for (const [name, value] of entries) {
      this.#output.uint16(name)
      this.#output.uint32(value)
    }
  }

  acknowledgeSettings(): void {
    this.#frame(frameTypes.settings, flags.ack, 0, 0)
  }

  /** Answers a PING with what it had in it. */
  pong(payload: Buffer): void {
    this.#frame(frameTypes.ping, flags.ack, 0, payload.length)
    this.#output.copy(payload)
  }

  windowUpdate(streamId: number, bytes: number): void {
    this.#frame(frameTypes.windowUpdate, 0, streamId, 4)
    this.#output.uint32(bytes)
  }

  reset(streamId: number, code: number): void {
    this.#frame(frameTypes.rstStream, 0, streamId, 4)
    this.#output.uint32(code)
  }

  /** A response that is nothing but its header block. */
  headersAlone(streamId: number, block: Buffer): void {
    this.#frame(frameTypes.headers, flags.endHeaders | flags.endStream, streamId, block.length)
    this.#output.copy(block)
  }

  goAway({ lastStreamId, code, reason }: { lastStreamId: number; code: number; reason: string }): void {
    const text = Buffer.from(reason)
    this.#frame(frameTypes.goAway, 0, 0, 8 + text.length)
    this.#output.uint32(lastStreamId)
    this.#output.uint32(code)
    this.#output.copy(text)
  }

  #frame(type: number, frameFlags: number, streamId: number, payloadBytes: number): void {
    this.#output.frame(type, frameFlags, streamId, payloadBytes, payloadBytes)
  }
}
