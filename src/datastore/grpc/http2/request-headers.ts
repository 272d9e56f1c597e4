import { HpackDecoder } from './hpack-decoder.ts'
import { Http2Error, errorCodes, flags, unpadded } from './protocol.ts'

/** Our SETTINGS_MAX_HEADER_LIST_SIZE, in RFC 9113's bytes: a request with a larger list is refused. */
export const headerListLimitBytes = 16 * 1024
/** A larger block ends the connection: it is decoded in any case, since the next one builds on its table. */
const headerBlockLimitBytes = 64 * 1024
const headerBlockLimitFrames = 1024
/** RFC 9113, section 6.5.2: what a field counts beside its name and value. */
const fieldOverheadBytes = 32
const priorityBytes = 5

/** The header blocks of one connection's requests, and the fields of the last one that was complete. */
export class RequestHeaders {
  readonly #decoder = new HpackDecoder()
  #parts: Buffer[] = []
  #partBytes = 0
  /** Of the request whose block is not complete; 0 when there is none. */
  #openStreamId = 0
  #listBytes = 0
  endStream = false
  method = ''
  path = ''
  contentType = ''
  encoding = ''

  /** Nothing but CONTINUATION may come now. */
  get isIncomplete(): boolean {
    return this.#openStreamId !== 0
  }

  get isTooLarge(): boolean {
    return this.#listBytes > headerListLimitBytes
  }

  /** Takes in a HEADERS frame; true when the block is complete with it. */
  start(frameFlags: number, streamId: number, payload: Buffer): boolean {
    if (streamId % 2 === 0) throw new Http2Error(errorCodes.protocolError, 'HEADERS on an even stream')
    let block = unpadded(frameFlags, payload)
    if ((frameFlags & flags.priority) !== 0) {
      if (block.length < priorityBytes) throw new Http2Error(errorCodes.frameSizeError, 'HEADERS too short')
      block = block.subarray(priorityBytes)
    }
    this.endStream = (frameFlags & flags.endStream) !== 0
    if ((frameFlags & flags.endHeaders) !== 0) return this.#decode(block)
    this.#openStreamId = streamId
    this.#parts = [Buffer.from(block)]
    this.#partBytes = block.length
    return false
  }

  /** The same for a CONTINUATION frame. */
  continue(frameFlags: number, streamId: number, payload: Buffer): boolean {
    if (streamId === 0 || streamId !== this.#openStreamId) {
      throw new Http2Error(errorCodes.protocolError, 'CONTINUATION without HEADERS')
    }
    this.#partBytes += payload.length
    if (this.#partBytes > headerBlockLimitBytes || this.#parts.length >= headerBlockLimitFrames) {
      throw new Http2Error(errorCodes.enhanceYourCalm, 'header block too large')
    }
    this.#parts.push(Buffer.from(payload))
    if ((frameFlags & flags.endHeaders) === 0) return false
    const block = Buffer.concat(this.#parts)
    this.#openStreamId = 0
    this.#parts = []
    return this.#decode(block)
  }

  #decode(block: Buffer): true {
    this.#listBytes = 0
    this.method = ''
    this.path = ''
    this.contentType = ''
    this.encoding = ''
    this.#decoder.decode(block, 0, block.length, this.#field)
    return true
  }

  readonly #field = (name: string, value: string): void => {
    this.#listBytes += name.length + value.length + fieldOverheadBytes
    if (name === ':path') this.path = value
    else if (name === ':method') this.method = value
    else if (name === 'content-type') this.contentType = value
    else if (name === 'grpc-encoding') this.encoding = value
  }
}
