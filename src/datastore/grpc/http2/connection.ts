import type { Socket } from 'node:net'

import { describeError } from '../../../base/errors.ts'
import type { RareLog } from '../../../base/rare-log.ts'
import type { Methods } from './call.ts'
import { ControlFrames } from './control-frames.ts'
import { FrameReader } from './frame-reader.ts'
import type { Load, Loaded } from './load.ts'
import { Output } from './output.ts'
import {
  Http2Error,
  defaultWindowBytes,
  errorCodes,
  flags,
  frameTypes,
  largestWindowBytes,
  settings,
  unpadded,
} from './protocol.ts'
import { RequestHeaders, headerListLimitBytes } from './request-headers.ts'
import { ResponseHeaders } from './response-headers.ts'
import { Stream, type StreamHost } from './stream.ts'
import { unknownMethod } from './unknown-method.ts'

/** How much a client may send on one stream and on the connection before we renew its windows. */
const streamWindowBytes = 1024 * 1024
const connectionWindowBytes = 8 * 1024 * 1024
/** With more than this unsent, queued messages wait for the socket ... */
const congestedBytes = 1024 * 1024
/** ... and with more than this (replies to requests that keep coming) nothing more is read. */
const pausedBytes = 2 * 1024 * 1024
/** Who leaves this much of the replies unread, for want of a window, must not ask for more ... */
const unreadLimitBytes = 64 * 1024 * 1024
/** ... and is cut off when more than this piles up on what was asked for before. */
const unreadEndBytes = 256 * 1024 * 1024
/** Our SETTINGS_MAX_CONCURRENT_STREAMS. */
const streamsLimit = 20_000
/** A client that has not sent its preface by then is none. */
const prefaceTimeoutMs = 10_000
/** How long a client that is cut off has to take in the reason. */
const lingerMs = 1000

export interface ConnectionOptions {
  readonly methods: Methods
  readonly maxMessageBytes: number
  readonly log: RareLog
  /** Called when the client has sent its preface. */
  readonly onPreface: () => void
  readonly load: Load
}

/**
 * The server's side of one HTTP/2 connection (RFC 9113), as far as gRPC uses it. Whatever goes wrong here, be it the
 * client's fault or ours, ends this connection and nothing else.
 */
export class Connection implements StreamHost, Loaded {
  readonly output: Output
  readonly responseHeaders = new ResponseHeaders()
  readonly maxMessageBytes: number
  readonly log: RareLog
  sendWindowBytes = defaultWindowBytes
  initialWindowBytes = defaultWindowBytes
  partialBytes = 0
  queuedBytes = 0

  readonly #socket: Socket
  readonly #methods: Methods
  readonly #load: Load
  readonly #reader = new FrameReader((type, frameFlags, streamId, payload) =>
    this.#frame(type, frameFlags, streamId, payload),
  )
  readonly #headers = new RequestHeaders()
  readonly #control: ControlFrames
  readonly #streams = new Map<number, Stream>()
  readonly #blocked = new Set<Stream>()
  readonly #onPreface: () => void
  #prefaceTimer: NodeJS.Timeout | undefined
  #lastStreamId = 0
  #unrenewedBytes = 0
  #isWoken = false
  #hasGrownWindows = false
  #waitsForTurn = false
  #isBackedUp = false
  #isClosing = false
  #isBroken = false

  constructor(socket: Socket, { methods, maxMessageBytes, log, load, onPreface }: ConnectionOptions) {
    this.#socket = socket
    this.#methods = methods
    this.#load = load
    this.#onPreface = onPreface
    this.maxMessageBytes = maxMessageBytes
    this.log = log
    this.output = new Output(socket)
    this.#control = new ControlFrames(this.output)
    socket.on('data', (chunk: Buffer) => this.#serve(() => this.#receive(chunk)))
    socket.on('drain', () => this.#serve(() => this.#drained()))
    socket.on('close', () => this.#closed())
    // Its end follows, and is all that matters.
    socket.on('error', () => undefined)
    this.#prefaceTimer = setTimeout(() => this.destroy(), prefaceTimeoutMs).unref()
    load.connections.add(this)
    this.#sendSettings()
  }

  get openStreams(): number {
    return this.#streams.size
  }

  get isServerBehind(): boolean {
    return this.#load.isBehind
  }

  get isCongested(): boolean {
    return this.output.queuedBytes > congestedBytes
  }

  addPartial(bytes: number): void {
    this.partialBytes += bytes
    this.#load.addPartial(bytes)
  }

  addQueued(bytes: number): void {
    const before = this.queuedBytes
    this.queuedBytes += bytes
    this.#load.addQueued(bytes)
    if (bytes > 0 && before > unreadEndBytes)
      throw new Http2Error(errorCodes.enhanceYourCalm, 'replies are not read')
  }

  block(stream: Stream): void {
    this.#blocked.add(stream)
  }

  wake(): void {
    if (this.#isWoken) return
    this.#isWoken = true
    process.nextTick(() => this.#serve(() => this.#flush()))
  }

  forget(stream: Stream): void {
    if (this.#streams.delete(stream.id)) this.#load.addStreams(-1)
    this.#blocked.delete(stream)
    if (this.#isClosing && this.#streams.size === 0) this.#end()
  }

  /** Lets the calls that are open end and takes no new ones. */
  close(): void {
    if (this.#isClosing || this.#isBroken) return
    this.#isClosing = true
    this.#goAway(errorCodes.noError, '')
    if (this.#streams.size === 0) this.#end()
  }

  /** Ends everything at once. */
  destroy(): void {
    this.#socket.destroy()
  }

  breakOff(thrown: unknown): void {
    if (this.#isBroken) return
    this.#isBroken = true
    const client = this.#socket.remoteAddress
    const error = describeError(thrown)
    const isClients = thrown instanceof Http2Error
    if (isClients) this.log.warn({ client, error }, 'closing a connection whose client breaks the protocol')
    else
      this.log.error({ client, error, stack: (thrown as Error).stack }, 'closing a connection after an error')
    this.#cancelStreams()
    try {
      if (isClients) this.#goAway(thrown.code, thrown.message)
      else this.#goAway(errorCodes.internalError, 'internal error')
      this.output.flush()
    } catch {
      // The connection ends without a reason.
    }
    this.#socket.destroySoon()
    setTimeout(() => this.destroy(), lingerMs).unref()
  }

  /** Everything that is done for the connection is done in here: what it throws concerns no other. */
  #serve(step: () => void): void {
    if (this.#isBroken) return
    try {
      step()
    } catch (thrown) {
      this.breakOff(thrown)
    }
  }

  #end(): void {
    this.#serve(() => this.#flush())
    this.#socket.end()
  }

  #closed(): void {
    this.#isBroken = true
    clearTimeout(this.#prefaceTimer)
    this.#cancelStreams()
    this.#load.connections.delete(this)
  }

  #cancelStreams(): void {
    for (const stream of [...this.#streams.values()]) stream.cancel()
  }

  #flush(): void {
    this.#isWoken = false
    if (this.#socket.destroyed) return
    this.output.flush()
    if (this.#socket.writableLength > pausedBytes) this.#isBackedUp = true
    if (this.#isBackedUp) this.#socket.pause()
  }

  #drained(): void {
    this.#isBackedUp = false
    if (!this.#waitsForTurn) this.#socket.resume()
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

  #receive(chunk?: Buffer): void {
    const isDone = this.#reader.read(chunk)
    if (this.#reader.isPrefaceSeen && this.#prefaceTimer !== undefined) {
      clearTimeout(this.#prefaceTimer)
      this.#prefaceTimer = undefined
      this.#onPreface()
    }
    if (this.#hasGrownWindows) this.#pumpAll()
    if (isDone) return
    this.#waitsForTurn = true
    this.#socket.pause()
    setImmediate(() => this.#serve(() => this.#takeTurn()))
  }

  /** Goes on with what was received, after the others had their turn. */
  #takeTurn(): void {
    this.#waitsForTurn = false
    if (!this.#isBackedUp) this.#socket.resume()
    this.#receive()
  }

  #frame(type: number, frameFlags: number, streamId: number, payload: Buffer): void {
    if (this.#headers.isIncomplete && type !== frameTypes.continuation) {
      throw new Http2Error(errorCodes.protocolError, 'a header block was interrupted')
    }
    switch (type) {
      case frameTypes.data:
        return this.#data(frameFlags, streamId, payload)
      case frameTypes.headers:
        if (this.#headers.start(frameFlags, streamId, payload)) this.#request(streamId)
        return
      case frameTypes.continuation:
        if (this.#headers.continue(frameFlags, streamId, payload)) this.#request(streamId)
        return
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

  #request(streamId: number): void {
    const { endStream, method, contentType, isTooLarge } = this.#headers
    if (streamId <= this.#lastStreamId) {
      // Trailers of a request; gRPC gives them no meaning.
      if (endStream) this.#streams.get(streamId)?.halfClose()
      return
    }
    this.#lastStreamId = streamId
    if (!this.#hasRoom) {
      this.#control.reset(streamId, errorCodes.refusedStream)
      return this.wake()
    }
    if (isTooLarge) return this.#answerHttp(streamId, 431)
    if (method !== 'POST') return this.#answerHttp(streamId, 405)
    if (!contentType.startsWith('application/grpc')) return this.#answerHttp(streamId, 415)
    this.#openStream(streamId)
  }

  /** What is refused was not served, so that a client may try again elsewhere. */
  get #hasRoom(): boolean {
    if (this.#isClosing || this.#load.isFull) return false
    return this.#streams.size < streamsLimit && this.queuedBytes <= unreadLimitBytes
  }

  #openStream(streamId: number): void {
    const { path, encoding, endStream } = this.#headers
    const method = this.#methods.get(path) ?? unknownMethod(path, this.#methods)
    const stream = new Stream(streamId, method, this)
    stream.encoding = encoding
    this.#streams.set(streamId, stream)
    this.#load.addStreams(1)
    stream.open()
    if (endStream) stream.halfClose()
  }

  #answerHttp(streamId: number, status: number): void {
    this.#control.headersAlone(streamId, this.responseHeaders.httpStatus(status))
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
    this.#control.pong(payload)
    this.wake()
  }

  #settings(frameFlags: number, payload: Buffer): void {
    if ((frameFlags & flags.ack) !== 0) return
    if (payload.length % 6 !== 0) throw new Http2Error(errorCodes.frameSizeError, 'bad SETTINGS')
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2)
      const name = payload.readUInt16BE(at)
      if (name === settings.headerTableSize) this.responseHeaders.limitTable(value)
      if (name === settings.maxHeaderListSize) this.responseHeaders.limitList(value)
      if (name === settings.initialWindowSize) this.#setInitialWindow(value)
    }
    this.#control.acknowledgeSettings()
    this.wake()
  }

  /** Streams look at it when they send; those that wait for it are served once for all that was received together. */
  #setInitialWindow(bytes: number): void {
    if (bytes > largestWindowBytes) {
      throw new Http2Error(errorCodes.flowControlError, 'bad initial window')
    }
    if (bytes > this.initialWindowBytes) this.#hasGrownWindows = true
    this.initialWindowBytes = bytes
  }

  #pumpAll(): void {
    this.#hasGrownWindows = false
    if (this.queuedBytes === 0) return
    for (const stream of [...this.#streams.values()]) stream.pump()
  }

  #sendSettings(): void {
    this.#control.settings([
      [settings.initialWindowSize, streamWindowBytes],
      [settings.maxConcurrentStreams, streamsLimit],
      [settings.maxHeaderListSize, headerListLimitBytes],
    ])
    this.#renewWindow(0, connectionWindowBytes - defaultWindowBytes)
  }

  #renewWindow(streamId: number, bytes: number): void {
    this.#control.windowUpdate(streamId, bytes)
    this.wake()
  }

  #goAway(code: number, reason: string): void {
    this.#control.goAway({ lastStreamId: this.#lastStreamId, code, reason })
    this.wake()
  }
}

function expectLength(payload: Buffer, length: number): void {
  if (payload.length !== length) throw new Http2Error(errorCodes.frameSizeError, 'bad frame length')
}
