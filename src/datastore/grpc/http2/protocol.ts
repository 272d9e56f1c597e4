/** RFC 9113: the numbers of HTTP/2 that a gRPC server needs. */

export const clientPreface: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
export const frameHeaderBytes = 9
/** SETTINGS_MAX_FRAME_SIZE's default, which is ours, and the least that any peer accepts. */
export const defaultFrameBytes = 16_384
export const defaultWindowBytes = 65_535
export const largestWindowBytes = 2 ** 31 - 1

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const flags = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const

export const settings = {
  headerTableSize: 1,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const

export const errorCodes = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  streamClosed: 5,
  frameSizeError: 6,
  refusedStream: 7,
  cancel: 8,
  compressionError: 9,
  enhanceYourCalm: 11,
} as const

/** A connection error (RFC 9113, section 5.4.1): GOAWAY with this code, then close. */
export class Http2Error extends Error {
  override readonly name = 'Http2Error'
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

/** The payload of a frame without its padding: RFC 9113, sections 6.1 and 6.2. */
export function unpadded(frameFlags: number, payload: Buffer): Buffer {
  if ((frameFlags & flags.padded) === 0) return payload
  const end = payload.length - (payload[0] ?? payload.length)
  if (end < 1) throw new Http2Error(errorCodes.protocolError, 'more padding than payload')
  return payload.subarray(1, end)
}
