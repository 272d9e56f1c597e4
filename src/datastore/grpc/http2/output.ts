import type { Socket } from 'node:net'

import { BufferPool } from '../../../base/buffer-pool.ts'
import { assert } from '../../../base/errors.ts'
import { frameHeaderBytes } from './protocol.ts'

/** Small frames are gathered in slabs, so that many replies leave in one write. A connection has one only until it is sent. */
const slabs = new BufferPool(64 * 1024, 64)
const noSlab: Buffer = Buffer.alloc(0)

/**
 * What is to be written to a socket next. Frames are gathered until `flush`; bytes that are large
 * already are passed on without a copy, so they must never change afterwards.
 */
export class Output {
  readonly #socket: Socket
  readonly #pieces: Buffer[] = []
  #slab = noSlab
  #start = 0
  #end = 0
  #unflushedBytes = 0
  #afterWrite: (() => void)[] = []

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** What was not handed to the kernel yet. */
  get queuedBytes(): number {
    return this.#unflushedBytes + this.#socket.writableLength
  }

  /** Writes a frame's header; its payload must follow. Room for `contiguousBytes` more is made. */
  frame(type: number, flags: number, streamId: number, payloadBytes: number, contiguousBytes: number): void {
    this.#reserve(frameHeaderBytes + contiguousBytes)
    const slab = this.#slab
    const at = this.#end
    slab[at] = payloadBytes >>> 16
    slab[at + 1] = payloadBytes >>> 8
    slab[at + 2] = payloadBytes
    slab[at + 3] = type
    slab[at + 4] = flags
    slab[at + 5] = streamId >>> 24
    slab[at + 6] = streamId >>> 16
    slab[at + 7] = streamId >>> 8
    slab[at + 8] = streamId
    this.#end = at + frameHeaderBytes
    this.#unflushedBytes += frameHeaderBytes + payloadBytes
  }

  /** Copies bytes for which room was made. */
  copy(bytes: Uint8Array): void {
    this.#slab.set(bytes, this.#end)
    this.#end += bytes.length
  }

  uint32(value: number): void {
    this.#slab.writeUInt32BE(value, this.#end)
    this.#end += 4
  }

  uint16(value: number): void {
    this.#slab.writeUInt16BE(value, this.#end)
    this.#end += 2
  }

  /** Passes bytes on by reference. */
  reference(bytes: Buffer): void {
    this.#closePiece()
    this.#pieces.push(bytes)
  }

  /** Calls back when the kernel has all that was passed on so far; not when the socket is closed before. */
  afterWrite(callback: () => void): void {
    this.#afterWrite.push(callback)
  }

  flush(): void {
    this.#closeSlab()
    const pieces = this.#pieces
    const last = pieces.pop()
    if (last === undefined) return
    if (pieces.length === 0) {
      this.#write(last)
    } else {
      this.#socket.cork()
      for (const piece of pieces) this.#socket.write(piece)
      this.#write(last)
      this.#socket.uncork()
    }
    pieces.length = 0
    this.#unflushedBytes = 0
  }

  #write(last: Buffer): void {
    const callbacks = this.#afterWrite
    if (callbacks.length === 0) {
      this.#socket.write(last)
      return
    }
    this.#afterWrite = []
    this.#socket.write(last, (error) => {
      if (!error) for (const callback of callbacks) callback()
    })
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#slab.length) return
    assert(bytes <= slabs.bytes, `a frame of ${bytes} bytes is copied`)
    this.#closeSlab()
    this.#slab = slabs.take()
  }

  #closeSlab(): void {
    this.#closePiece()
    const slab = this.#slab
    if (slab !== noSlab) this.afterWrite(() => slabs.give(slab))
    this.#slab = noSlab
    this.#start = 0
    this.#end = 0
  }

  #closePiece(): void {
    if (this.#end === this.#start) return
    this.#pieces.push(this.#slab.subarray(this.#start, this.#end))
    this.#start = this.#end
  }
}
