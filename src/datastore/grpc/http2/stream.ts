import { describeError } from '../../../base/errors.ts'
import type { RareLog } from '../../../base/rare-log.ts'
import { MessageWriter, grpcPrefixBytes, pieces } from '../protobuf/message-writer.ts'
import { StatusError, codes } from '../status.ts'
import type { Call, MessageParts, Method, StreamListener } from './call.ts'
import { decompress } from './compression.ts'
import { defaultFrameBytes, errorCodes, flags, frameTypes } from './protocol.ts'
import type { Output } from './output.ts'
import { PieceQueue } from './piece-queue.ts'
import type { ResponseHeaders } from './response-headers.ts'

/** A payload up to this size is copied beside its frame's header, a longer one is written by reference. */
const copiedPayloadBytes = 8 * 1024

/** A larger reply has to wait for better times when all clients together leave too much unread. */
const largeReplyBytes = 1024 * 1024

const partWriter = new MessageWriter()

/** More than this of messages that are not complete, over all streams of a connection, is refused. */
const partialLimitBytes = 64 * 1024 * 1024
const noBytes: Buffer = Buffer.alloc(0)
/** Of most streams, whose replies are sent at once. */
const noPieces = new PieceQueue()

/** What a stream needs of its connection. */
export interface StreamHost {
  readonly output: Output
  readonly responseHeaders: ResponseHeaders
  readonly maxMessageBytes: number
  readonly log: RareLog
  sendWindowBytes: number
  /** What the peer leaves every stream from its beginning; it may change that at any time. */
  readonly initialWindowBytes: number
  /** What the connection's streams keep of messages that are not complete. */
  readonly partialBytes: number
  addPartial(bytes: number): void
  /** Counts what the connection's streams have in their queues; throws when there is no end of it. */
  addQueued(bytes: number): void
  readonly isCongested: boolean
  /** All clients together leave too much unread. */
  readonly isServerBehind: boolean
  /** Has `pump` called when the connection's window or its socket has room again. */
  block(stream: Stream): void
  /** Has the output flushed in this turn of the event loop. */
  wake(): void
  forget(stream: Stream): void
  /** Ends the connection: nothing can be sent on it any more. */
  breakOff(thrown: unknown): void
}

/**
 * One gRPC call on its HTTP/2 stream:
 *
 *     receiving: messages -> half-closed        sending: headers -> messages -> trailers
 *
 * either of which a reset ends at once. What the client's window or its socket has no room for waits
 * in the queue.
 */
export class Stream implements Call {
  readonly id: number
  /** What came in since the stream's receive window was last renewed. */
  unrenewedBytes = 0
  /** What the client's messages may be compressed with: the header grpc-encoding. */
  encoding = ''
  isOpen = true
  onDrain: (() => void) | undefined
  onCancel: (() => void) | undefined

  readonly #host: StreamHost
  readonly #method: Method
  #listener: StreamListener | undefined
  #isHalfClosed = false
  #headersSent = false
  #trailers: 'none' | 'success' | StatusError = 'none'
  #queue = noPieces
  /** What of the queue's cost the connection knows of. */
  #countedBytes = 0
  #parts: MessageParts | undefined
  #partial = noBytes
  #partialBytes = 0
  #request: Buffer | undefined
  /** Beside the initial window: what the peer has added, less what was sent. */
  #windowBytes = 0

  constructor(id: number, method: Method, host: StreamHost) {
    this.id = id
    this.#method = method
    this.#host = host
  }

  get queuedBytes(): number {
    return this.#queue.bytes
  }

  /** How much of its 31 bits' window the peer has left us for this stream. */
  get sendWindowBytes(): number {
    return this.#host.initialWindowBytes + this.#windowBytes
  }

  set sendWindowBytes(bytes: number) {
    this.#windowBytes = bytes - this.#host.initialWindowBytes
  }

  open(): void {
    const method = this.#method
    if (method.kind === 'streaming') this.#guard(() => (this.#listener = method.open(this)))
  }

  /** Takes in one DATA frame's bytes, a view of the connection's input. */
  receive(bytes: Buffer, endStream: boolean): void {
    if (this.#partialBytes === 0 && bytes.length > 0 && isOneMessage(bytes)) this.#message(bytes, endStream)
    else if (bytes.length > 0) this.#assemble(bytes)
    if (endStream) this.halfClose()
  }

  halfClose(): void {
    if (this.#isHalfClosed) return
    this.#isHalfClosed = true
    if (!this.isOpen) return
    if (this.#partialBytes > 0) return this.fail(new StatusError(codes.internal, 'unexpected EOF'))
    const { kind } = this.#method
    if (kind === 'streaming') return this.#guard(() => this.#listener?.halfClose())
    const request = this.#request
    if (request === undefined) return this.fail(new StatusError(codes.internal, 'the call has no message'))
    this.#request = undefined
    this.#handle(request)
  }

  /** The client reset the stream or is gone. */
  cancel(): void {
    if (!this.isOpen) return
    this.#count(codes.canceled)
    this.#close()
    this.#guard(() => this.onCancel?.())
  }

  send(message: MessageWriter): void {
    if (!this.isOpen || this.#trailers !== 'none') return
    try {
      if (this.#fits(message.framedBytes)) return this.#writeData(message.framed())
      if (this.#isTooMuch(message.framedBytes)) return this.fail(tooMuchUnread())
      this.#enqueue(message.takeFramed())
      this.#writeQueue()
    } catch (thrown) {
      this.#host.breakOff(thrown)
    }
  }

  reply(message: MessageWriter): void {
    this.send(message)
    this.end()
  }

  replyInParts(message: MessageParts): void {
    if (!this.isOpen || this.#trailers !== 'none') return message.release()
    if (this.#isTooMuch(message.messageBytes)) {
      message.release()
      return this.fail(tooMuchUnread())
    }
    this.#trailers = 'success'
    this.#parts = message
    if (!message.write(partWriter.reset())) this.#releaseParts()
    try {
      this.#enqueue(partWriter.takeFramed(message.messageBytes))
      this.#writeQueue()
    } catch (thrown) {
      this.#host.breakOff(thrown)
    }
  }

  end(): void {
    if (!this.isOpen || this.#trailers !== 'none') return
    this.#trailers = 'success'
    this.#tryFinish()
  }

  fail(error: StatusError): void {
    if (!this.isOpen || (this.#trailers !== 'none' && this.#parts === undefined)) return
    if (this.#parts !== undefined) this.#dropReply()
    this.#trailers = error
    this.#tryFinish()
  }

  failWith(thrown: unknown): void {
    this.fail(this.#statusOf(thrown))
  }

  /** There is room again: goes on with the queue, and calls `onDrain` when nothing of it is left. */
  pump(): void {
    if (!this.isOpen || (this.#queue.isEmpty && this.#parts === undefined)) return
    this.#writeQueue()
    if (this.isOpen && this.#queue.isEmpty) this.#guard(() => this.onDrain?.())
  }

  /** Writes as much of the queue as the windows and the socket have room for. */
  #writeQueue(): void {
    while (!this.#queue.isEmpty || this.#encodePart()) {
      const { head } = this.#queue
      const room = Math.min(this.sendWindowBytes, this.#host.sendWindowBytes, defaultFrameBytes)
      // An update of the stream's own window pumps it anyway.
      if (this.sendWindowBytes <= 0) return
      if (room <= 0 || this.#host.isCongested) return this.#host.block(this)
      const part = head.length <= room ? head : head.subarray(0, room)
      this.#queue.take(part.length)
      this.#countQueue()
      this.#writeData(part)
      if (part === head) this.#host.output.afterWrite(() => pieces.give(head))
    }
    this.#finish()
  }

  #enqueue(parts: readonly Buffer[]): void {
    if (this.#queue === noPieces) this.#queue = new PieceQueue()
    for (const piece of parts) this.#queue.push(piece)
    this.#countQueue()
  }

  #countQueue(): void {
    const costBytes = this.#queue.costBytes + (this.#parts?.heldBytes ?? 0)
    const change = costBytes - this.#countedBytes
    if (change === 0) return
    this.#countedBytes = costBytes
    this.#host.addQueued(change)
  }

  #encodePart(): boolean {
    const parts = this.#parts
    if (parts === undefined) return false
    try {
      if (!parts.write(partWriter.reset())) this.#releaseParts()
    } catch (thrown) {
      this.#dropReply()
      this.#trailers = this.#statusOf(thrown)
      return false
    }
    this.#enqueue(partWriter.takePart())
    return true
  }

  /** Of a reply in parts the client has a beginning that it can do nothing with. */
  #dropReply(): void {
    this.#releaseParts()
    if (!this.#queue.isEmpty) this.#queue.clear()
    this.#countQueue()
  }

  #releaseParts(): void {
    this.#parts?.release()
    this.#parts = undefined
  }

  /** A stream of messages is slowed down by who sends them. */
  #isTooMuch(length: number): boolean {
    return length > largeReplyBytes && this.#method.kind === 'unary' && this.#host.isServerBehind
  }

  #fits(length: number): boolean {
    return (
      this.#queue.isEmpty &&
      length <= copiedPayloadBytes &&
      length <= this.sendWindowBytes &&
      length <= this.#host.sendWindowBytes &&
      !this.#host.isCongested
    )
  }

  /** Writes one DATA frame. What is not copied must never change. */
  #writeData(bytes: Buffer): void {
    this.#sendHeaders()
    const { output } = this.#host
    const isCopied = bytes.length <= copiedPayloadBytes
    output.frame(frameTypes.data, 0, this.id, bytes.length, isCopied ? bytes.length : 0)
    if (isCopied) output.copy(bytes)
    else output.reference(bytes)
    this.#windowBytes -= bytes.length
    this.#host.sendWindowBytes -= bytes.length
    this.#host.wake()
  }

  #sendHeaders(): void {
    if (this.#headersSent) return
    this.#headersSent = true
    this.#writeHeaders(this.#host.responseHeaders.initial(), flags.endHeaders)
  }

  #writeHeaders(block: Buffer, frameFlags: number): void {
    this.#host.output.frame(frameTypes.headers, frameFlags, this.id, block.length, block.length)
    this.#host.output.copy(block)
    this.#host.wake()
  }

  #tryFinish(): void {
    try {
      this.#finish()
    } catch (thrown) {
      this.#host.breakOff(thrown)
    }
  }

  /** Writes the trailers, once the queue is empty. */
  #finish(): void {
    if (!this.#queue.isEmpty || this.#parts !== undefined) return
    const trailers = this.#trailers
    if (trailers === 'none') return
    const headers = this.#host.responseHeaders
    const frameFlags = flags.endHeaders | flags.endStream
    if (trailers === 'success') {
      this.#sendHeaders()
      this.#writeHeaders(headers.successTrailers(), frameFlags)
    } else {
      const block = this.#headersSent ? headers.failureTrailers(trailers) : headers.trailersOnly(trailers)
      this.#writeHeaders(block, frameFlags)
    }
    // RFC 9113, section 8.1: a server that needs no more of the request says so.
    if (!this.#isHalfClosed) {
      this.#host.output.frame(frameTypes.rstStream, 0, this.id, 4, 4)
      this.#host.output.uint32(errorCodes.noError)
    }
    this.#count(trailers === 'success' ? codes.ok : trailers.code)
    this.#close()
  }

  #count(code: number): void {
    const { handled } = this.#method
    if (handled !== undefined) handled[code] = (handled[code] as number) + 1
  }

  #close(): void {
    this.isOpen = false
    this.#dropReply()
    this.#dropPartial()
    this.#host.forget(this)
  }

  /** Puts messages together that are split over frames, or share one. */
  #assemble(bytes: Buffer): void {
    if (!this.#makeRoom(bytes.length)) return
    bytes.copy(this.#partial, this.#partialBytes)
    this.#partialBytes += bytes.length
    let at = 0
    while (this.isOpen && this.#partialBytes - at >= grpcPrefixBytes) {
      const length = this.#partial.readUInt32BE(at + 1)
      if (length > this.#host.maxMessageBytes) return this.fail(tooLarge(length, this.#host.maxMessageBytes))
      const end = at + grpcPrefixBytes + length
      if (end > this.#partialBytes) break
      this.#message(this.#partial.subarray(at, end), false)
      at = end
    }
    if (!this.isOpen) return
    if (at === this.#partialBytes) this.#dropPartial()
    else if (at > 0) {
      this.#partial.copyWithin(0, at, this.#partialBytes)
      this.#partialBytes -= at
    }
  }

  /** Copied, as a small part would hold on to all that came with it; grown as it comes, not as it is announced. */
  #makeRoom(bytes: number): boolean {
    const needed = this.#partialBytes + bytes
    if (needed <= this.#partial.length) return true
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#partial.length * 2))
    this.#host.addPartial(grown.length - this.#partial.length)
    this.#partial.copy(grown, 0, 0, this.#partialBytes)
    this.#partial = grown
    if (this.#host.partialBytes <= partialLimitBytes) return true
    this.fail(new StatusError(codes.resourceExhausted, 'too many incomplete messages on one connection'))
    return false
  }

  #dropPartial(): void {
    this.#host.addPartial(-this.#partial.length)
    this.#partial = noBytes
    this.#partialBytes = 0
  }

  #message(framed: Buffer, isLast: boolean): void {
    if (!this.isOpen) return
    if (framed.length - grpcPrefixBytes > this.#host.maxMessageBytes) {
      return this.fail(tooLarge(framed.length - grpcPrefixBytes, this.#host.maxMessageBytes))
    }
    const body = framed.subarray(grpcPrefixBytes)
    if (framed[0] === 0) return this.#take(body, isLast)
    this.#guard(() => this.#take(decompress(framed, this.encoding, this.#host.maxMessageBytes), isLast))
  }

  #take(message: Buffer, isLast: boolean): void {
    if (this.#method.kind === 'streaming') return this.#guard(() => this.#listener?.message(message))
    if (this.#request !== undefined)
      return this.fail(new StatusError(codes.internal, 'the call has a second message'))
    // A unary request is served when the client has closed its side; until then the view may change.
    this.#request = isLast ? message : Buffer.from(message)
  }

  #handle(request: Buffer): void {
    const method = this.#method
    if (method.kind === 'unary') this.#guard(() => method.handle(request, this))
  }

  #guard(serve: () => void): void {
    try {
      serve()
    } catch (thrown) {
      this.failWith(thrown)
    }
  }

  #statusOf(thrown: unknown): StatusError {
    if (thrown instanceof StatusError) return thrown
    this.#host.log.error(
      { error: describeError(thrown), stack: (thrown as Error).stack },
      'cannot serve a call',
    )
    return new StatusError(codes.internal, 'internal error')
  }
}

/** Whether the bytes are exactly one message behind its prefix: nearly every DATA frame. */
function isOneMessage(bytes: Buffer): boolean {
  return bytes.length >= grpcPrefixBytes && bytes.readUInt32BE(1) === bytes.length - grpcPrefixBytes
}

/** The words of grpc-go's server (rpc_util.go, recvMsg), which clients look for. */
function tooLarge(length: number, limit: number): StatusError {
  return new StatusError(
    codes.resourceExhausted,
    `grpc: received message larger than max (${length} vs. ${limit})`,
  )
}

function tooMuchUnread(): StatusError {
  return new StatusError(codes.resourceExhausted, 'too many replies are not read: try again')
}
