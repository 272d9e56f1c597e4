import type { Socket } from 'node:net'

import { describeError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/logger.ts'
import type { Methods } from './call.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { Output } from './output.ts'
import {
  Http2Error,
  clientPreface,
  defaultFrameBytes,
  defaultWindowBytes,
  errorCodes,
  flags,
  frameHeaderBytes,
  frameTypes,
  largestWindowBytes,
  settings,
} from './protocol.ts'
import { ResponseHeaders } from './response-headers.ts'
import { Stream, type StreamHost } from './stream.ts'
import { unknownMethod } from './unknown-method.ts'

/** How much a client may send on one stream and on the connection before we renew its windows. */
const streamWindowBytes = 1024 * 1024
const connectionWindowBytes = 8 * 1024 * 1024
/** With more than this unsent, queued messages wait for the socket ... */
const congestedBytes = 1024 * 1024
/** ... and with more than this (replies to requests that keep coming) nothing more is read. */
const pausedBytes = 8 * 1024 * 1024
/** Who leaves this much of the replies unread, for want of a window, must not ask for more. */
const unreadLimitBytes = 64 * 1024 * 1024
const headerBlockLimitBytes = 64 * 1024
const maxStreams = 100_000

const noBytes: Buffer = Buffer.alloc(0)

/** The server's side of one HTTP/2 connection (RFC 9113), as far as gRPC uses it. */
export class Connection implements StreamHost {
  readonly output: Output
  readonly responseHeaders = new ResponseHeaders()
  readonly maxMessageBytes: number
  readonly log: Logger
  sendWindowBytes = defaultWindowBytes
  partialBytes = 0
  queuedBytes = 0

  readonly #socket: Socket
  readonly #methods: Methods
  readonly #decoder = new HpackDecoder()
  readonly #streams = new Map<number, Stream>()
  readonly #blocked = new Set<Stream>()
  #rest: Buffer = noBytes
  #prefaceSeen = false
  #lastStreamId = 0
  #peerWindowBytes = defaultWindowBytes
  #unrenewedBytes = 0
  #headerBlock: { streamId: number; endStream: boolean; parts: Buffer[]; bytes: number } | undefined
  #method = ''
  #path = ''
  #contentType = ''
  #encoding = ''
  #isWoken = false
  #isClosing = false

  constructor(
    socket: Socket,
    { methods, maxMessageBytes, log }: { methods: Methods; maxMessageBytes: number; log: Logger },
  ) {
    this.#socket = socket
    this.#methods = methods
    this.maxMessageBytes = maxMessageBytes
    this.log = log
    this.output = new Output(socket)
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('drain', () => this.#drained())
    socket.on('close', () => this.#closed())
    socket.on('error', (error) => log.debug({ error: error.message }, 'connection lost'))
    this.#sendSettings()
  }

  get isCongested(): boolean {
    return this.output.queuedBytes > congestedBytes
  }

  get openStreams(): number {
    return this.#streams.size
  }

  block(stream: Stream): void {
    this.#blocked.add(stream)
  }

  wake(): void {
    if (this.#isWoken) return
    this.#isWoken = true
    process.nextTick(() => this.#flush())
  }

  forget(stream: Stream): void {
    this.#streams.delete(stream.id)
    this.#blocked.delete(stream)
    if (this.#isClosing && this.#streams.size === 0) this.#end()
  }

  /** Lets the calls that are open end and takes no new ones. */
  close(): void {
    if (this.#isClosing) return
    this.#isClosing = true
    this.#goAway(errorCodes.noError, '')
    if (this.#streams.size === 0) this.#end()
  }

  /** Ends everything at once. */
  destroy(): void {
    this.#socket.destroy()
  }

  #end(): void {
    this.#flush()
    this.#socket.end()
  }

  #closed(): void {
    for (const stream of [...this.#streams.values()]) stream.cancel()
  }

  #flush(): void {
    this.#isWoken = false
    if (this.#socket.destroyed) return
    this.output.flush()
    if (this.#socket.writableLength > pausedBytes) this.#socket.pause()
  }

  #drained(): void {
    this.#socket.resume()
    this.#pumpBlocked()
  }

  /** Each once, as long as there is room: an update of one byte costs one stream's work, not that of all. */
  #pumpBlocked(): void {
    for (let left = this.#blocked.size; left > 0; left--) {
      if (this.sendWindowBytes <= 0 || this.isCongested) return
      const [stream] = this.#blocked as Iterable<Stream>
      if (stream === undefined) return
      this.#blocked.delete(stream)
      stream.pump()
    }
  }

  #receive(chunk: Buffer): void {
    try {
      this.#rest = this.#consume(this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]))
    } catch (thrown) {
      if (!(thrown instanceof Http2Error)) throw thrown
      this.log.debug({ error: describeError(thrown) }, 'closing a connection that breaks the protocol')
      this.#goAway(thrown.code, thrown.message)
      this.#flush()
      this.#socket.destroySoon()
    }
  }

  /** Handles the whole frames of `input`; returns the rest. */
  #consume(input: Buffer): Buffer {
    let at = 0
    if (!this.#prefaceSeen) {
      const length = Math.min(input.length, clientPreface.length)
      if (input.compare(clientPreface, 0, length, 0, length) !== 0) {
        throw new Http2Error(errorCodes.protocolError, 'no HTTP/2 client')
      }
      if (length < clientPreface.length) return input
      this.#prefaceSeen = true
      at = length
    }
    while (input.length - at >= frameHeaderBytes) {
      const length = ((input[at] as number) << 16) | input.readUInt16BE(at + 1)
      if (length > defaultFrameBytes) throw new Http2Error(errorCodes.frameSizeError, 'frame too large')
      const start = at + frameHeaderBytes
      const end = start + length
      if (end > input.length) break
      const streamId = input.readUInt32BE(at + 5) & largestWindowBytes
      this.#frame(input[at + 3] as number, input[at + 4] as number, streamId, input.subarray(start, end))
      at = end
    }
    return at === input.length ? noBytes : input.subarray(at)
  }

  #frame(type: number, frameFlags: number, streamId: number, payload: Buffer): void {
    if (this.#headerBlock !== undefined && type !== frameTypes.continuation) {
      throw new Http2Error(errorCodes.protocolError, 'a header block was interrupted')
    }
    switch (type) {
      case frameTypes.data:
        return this.#data(frameFlags, streamId, payload)
      case frameTypes.headers:
        return this.#headers(frameFlags, streamId, payload)
      case frameTypes.continuation:
        return this.#continuation(frameFlags, streamId, payload)
      case frameTypes.windowUpdate:
        return this.#windowUpdate(streamId, payload)
      case frameTypes.ping:
        return this.#ping(frameFlags, payload)
      case frameTypes.settings:
        return this.#settings(frameFlags, payload)
      case frameTypes.rstStream:
        expectLength(payload, 4)
        return this.#streams.get(streamId)?.cancel()
      case frameTypes.pushPromise:
        throw new Http2Error(errorCodes.protocolError, 'a client cannot push')
      default:
        // PRIORITY, GOAWAY and what RFC 9113 does not know need no answer.
        return
    }
  }

  #data(frameFlags: number, streamId: number, payload: Buffer): void {
    if (streamId === 0 || streamId > this.#lastStreamId) {
      throw new Http2Error(errorCodes.protocolError, 'DATA on an idle stream')
    }
    this.#unrenewedBytes += payload.length
    if (this.#unrenewedBytes > connectionWindowBytes) {
      throw new Http2Error(errorCodes.flowControlError, 'the connection window is exceeded')
    }
    if (this.#unrenewedBytes >= connectionWindowBytes / 2) {
      this.#renewWindow(0, this.#unrenewedBytes)
      this.#unrenewedBytes = 0
    }
    const bytes = unpadded(frameFlags, payload)
    const stream = this.#streams.get(streamId)
    if (stream === undefined) return
    if (this.queuedBytes > unreadLimitBytes) {
      throw new Http2Error(errorCodes.enhanceYourCalm, 'replies are not read')
    }
    const endStream = (frameFlags & flags.endStream) !== 0
    stream.unrenewedBytes += payload.length
    if (stream.unrenewedBytes > streamWindowBytes) {
      throw new Http2Error(errorCodes.flowControlError, 'a stream window is exceeded')
    }
    if (!endStream && stream.unrenewedBytes >= streamWindowBytes / 2) {
      this.#renewWindow(streamId, stream.unrenewedBytes)
      stream.unrenewedBytes = 0
    }
    stream.receive(bytes, endStream)
  }

  #headers(frameFlags: number, streamId: number, payload: Buffer): void {
    if (streamId % 2 === 0) throw new Http2Error(errorCodes.protocolError, 'HEADERS on an even stream')
    let block = unpadded(frameFlags, payload)
    if ((frameFlags & flags.priority) !== 0) {
      if (block.length < 5) throw new Http2Error(errorCodes.frameSizeError, 'HEADERS too short')
      block = block.subarray(5)
    }
    const endStream = (frameFlags & flags.endStream) !== 0
    if ((frameFlags & flags.endHeaders) !== 0) return this.#request(streamId, block, endStream)
    this.#headerBlock = { streamId, endStream, parts: [Buffer.from(block)], bytes: block.length }
  }

  #continuation(frameFlags: number, streamId: number, payload: Buffer): void {
    const block = this.#headerBlock
    if (block === undefined || block.streamId !== streamId) {
      throw new Http2Error(errorCodes.protocolError, 'CONTINUATION without HEADERS')
    }
    block.bytes += payload.length
    if (block.bytes > headerBlockLimitBytes || block.parts.length > headerBlockLimitBytes / 64) {
      throw new Http2Error(errorCodes.enhanceYourCalm, 'header block too large')
    }
    block.parts.push(Buffer.from(payload))
    if ((frameFlags & flags.endHeaders) === 0) return
    this.#headerBlock = undefined
    this.#request(streamId, Buffer.concat(block.parts), block.endStream)
  }

  readonly #field = (name: string, value: string): void => {
    if (name === ':path') this.#path = value
    else if (name === ':method') this.#method = value
    else if (name === 'content-type') this.#contentType = value
    else if (name === 'grpc-encoding') this.#encoding = value
  }

  #request(streamId: number, block: Buffer, endStream: boolean): void {
    this.#method = ''
    this.#path = ''
    this.#contentType = ''
    this.#encoding = ''
    this.#decoder.decode(block, 0, block.length, this.#field)
    if (streamId <= this.#lastStreamId) {
      // Trailers of a request; gRPC gives them no meaning.
      if (endStream) this.#streams.get(streamId)?.halfClose()
      return
    }
    this.#lastStreamId = streamId
    if (this.#isClosing || this.#streams.size >= maxStreams || this.queuedBytes > unreadLimitBytes)
      return this.#reset(streamId, errorCodes.refusedStream)
    if (this.#method !== 'POST') return this.#answerHttp(streamId, 405)
    if (!this.#contentType.startsWith('application/grpc')) return this.#answerHttp(streamId, 415)
    this.#openStream(streamId, endStream)
  }

  #openStream(streamId: number, endStream: boolean): void {
    const method = this.#methods.get(this.#path) ?? unknownMethod(this.#path, this.#methods)
    const stream = new Stream(streamId, method, this, this.#peerWindowBytes)
    stream.encoding = this.#encoding
    this.#streams.set(streamId, stream)
    stream.open()
    if (endStream) stream.halfClose()
  }

  #answerHttp(streamId: number, status: number): void {
    const block = this.responseHeaders.httpStatus(status)
    this.output.frame(
      frameTypes.headers,
      flags.endHeaders | flags.endStream,
      streamId,
      block.length,
      block.length,
    )
    this.output.copy(block)
    this.wake()
  }

  #windowUpdate(streamId: number, payload: Buffer): void {
    expectLength(payload, 4)
    const increment = payload.readUInt32BE(0) & largestWindowBytes
    const target = streamId === 0 ? this : this.#streams.get(streamId)
    if (target === undefined) return
    target.sendWindowBytes += increment
    if (increment === 0 || target.sendWindowBytes > largestWindowBytes) {
      throw new Http2Error(errorCodes.flowControlError, 'bad window update')
    }
    if (target !== this) (target as Stream).pump()
    else if (this.#blocked.size > 0) this.#pumpBlocked()
  }

  #ping(frameFlags: number, payload: Buffer): void {
    expectLength(payload, 8)
    if ((frameFlags & flags.ack) !== 0) return
    this.output.frame(frameTypes.ping, flags.ack, 0, payload.length, payload.length)
    this.output.copy(payload)
    this.wake()
  }

  #settings(frameFlags: number, payload: Buffer): void {
    if ((frameFlags & flags.ack) !== 0) return
    if (payload.length % 6 !== 0) throw new Http2Error(errorCodes.frameSizeError, 'bad SETTINGS')
    let windowBytes = this.#peerWindowBytes
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2)
      const name = payload.readUInt16BE(at)
      if (name === settings.headerTableSize) this.responseHeaders.limitTable(value)
      if (name === settings.initialWindowSize) windowBytes = value
      if (windowBytes > largestWindowBytes)
        throw new Http2Error(errorCodes.flowControlError, 'bad initial window')
    }
    this.#resizeWindows(windowBytes)
    this.output.frame(frameTypes.settings, flags.ack, 0, 0, 0)
    this.wake()
  }

  /** Once for a frame, however often it names the window: each time costs a look at every stream. */
  #resizeWindows(windowBytes: number): void {
    const change = windowBytes - this.#peerWindowBytes
    this.#peerWindowBytes = windowBytes
    if (change === 0) return
    for (const stream of [...this.#streams.values()]) {
      stream.sendWindowBytes += change
      if (change > 0) stream.pump()
    }
  }

  #sendSettings(): void {
    this.output.frame(frameTypes.settings, 0, 0, 6, 6)
    this.output.uint16(settings.initialWindowSize)
    this.output.uint32(streamWindowBytes)
    this.#renewWindow(0, connectionWindowBytes - defaultWindowBytes)
  }

  #renewWindow(streamId: number, bytes: number): void {
    this.output.frame(frameTypes.windowUpdate, 0, streamId, 4, 4)
    this.output.uint32(bytes)
    this.wake()
  }

  #reset(streamId: number, code: number): void {
    this.output.frame(frameTypes.rstStream, 0, streamId, 4, 4)
    this.output.uint32(code)
    this.wake()
  }

  #goAway(code: number, message: string): void {
    const text = Buffer.from(message)
    this.output.frame(frameTypes.goAway, 0, 0, 8 + text.length, 8 + text.length)
    this.output.uint32(this.#lastStreamId)
    this.output.uint32(code)
    this.output.copy(text)
    this.wake()
  }
}

function expectLength(payload: Buffer, length: number): void {
  if (payload.length !== length) throw new Http2Error(errorCodes.frameSizeError, 'bad frame length')
}

function unpadded(frameFlags: number, payload: Buffer): Buffer {
  if ((frameFlags & flags.padded) === 0) return payload
  const end = payload.length - (payload[0] ?? payload.length)
  if (end < 1) throw new Http2Error(errorCodes.protocolError, 'more padding than payload')
  return payload.subarray(1, end)
}
