import {
  Http2Error,
  clientPreface,
  defaultFrameBytes,
  errorCodes,
  frameHeaderBytes,
  largestWindowBytes,
} from './protocol.ts'

/** For so long frames of one connection are served before the others have their turn. */
const sliceMs = 5
/** The clock is looked at once for so many frames: it costs as much as a small one. */
const framesBetweenLooks = 8

const noBytes: Buffer = Buffer.alloc(0)

/** The payload is a view that is valid during the call only. */
type FrameSink = (type: number, flags: number, streamId: number, payload: Buffer) => void

/** Cuts what a client sends into its preface and frames: RFC 9113, sections 3.4 and 4.1. */
export class FrameReader {
  readonly #sink: FrameSink
  #rest = noBytes
  #isSliceOver = false
  isPrefaceSeen = false

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Takes in what was received, and goes on with what is left of before; false when its slice of time is over. */
  read(chunk: Buffer = noBytes): boolean {
    let input = chunk
    if (this.#rest.length > 0) input = chunk.length === 0 ? this.#rest : Buffer.concat([this.#rest, chunk])
    let at = 0
    if (!this.isPrefaceSeen) {
      this.isPrefaceSeen = hasPreface(input)
      if (this.isPrefaceSeen) at = clientPreface.length
    }
    this.#isSliceOver = false
    if (this.isPrefaceSeen) at = this.#frames(input, at)
    this.#rest = at === input.length ? noBytes : input.subarray(at)
    return !this.#isSliceOver
  }

  /** Hands out the whole frames, for one slice of time; returns where the rest starts. */
  #frames(input: Buffer, start: number): number {
    let endMs = 0
    let at = start
    for (let count = 1; input.length - at >= frameHeaderBytes; count++) {
      const length = ((input[at] as number) << 16) | input.readUInt16BE(at + 1)
      if (length > defaultFrameBytes) throw new Http2Error(errorCodes.frameSizeError, 'frame too large')
      const payload = at + frameHeaderBytes
      const next = payload + length
      if (next > input.length) break
      const streamId = input.readUInt32BE(at + 5) & largestWindowBytes
      this.#sink(input[at + 3] as number, input[at + 4] as number, streamId, input.subarray(payload, next))
      at = next
      if (count % framesBetweenLooks !== 0) continue
      const nowMs = performance.now()
      if (endMs === 0) endMs = nowMs + sliceMs
      this.#isSliceOver = nowMs > endMs
      if (this.#isSliceOver) break
    }
    return at
  }
}

/** False as long as it can still become one. */
function hasPreface(input: Buffer): boolean {
  const length = Math.min(input.length, clientPreface.length)
  if (input.compare(clientPreface, 0, length, 0, length) !== 0) {
    throw new Http2Error(errorCodes.protocolError, 'no HTTP/2 client')
  }
  return length === clientPreface.length
}
