import { once } from 'node:events'
import { type Socket, connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { flags, frameTypes } from '../../../src/datastore/grpc/http2/protocol.ts'

/** HTTP/2 by hand, for what no client would send. */

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
export const largestFrameBytes = 16_384

export interface Attack {
  readonly socket: Socket
  readonly received: () => Buffer
  readonly send: (bytes: Buffer) => Promise<void>
}

/** A connection on which the preface was sent, and what has come in on it. */
export async function attack(listening: string): Promise<Attack> {
  const { hostname, port } = new URL(listening)
  const socket = connect(Number(port), hostname)
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.write(preface)
  socket.write(frame(frameTypes.settings, 0, 0))
  const send = async (bytes: Buffer): Promise<void> => {
    if (!socket.destroyed) socket.write(bytes)
    while (socket.writableNeedDrain && !socket.destroyed) await delay(1)
  }
  return { socket, received: () => Buffer.concat(chunks), send }
}

export function frame(
  type: number,
  frameFlags: number,
  stream: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = frameFlags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A string of HPACK without Huffman coding: RFC 7541, section 5.2. */
export function string(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  const prefix = bytes.length < 127 ? [bytes.length] : [127]
  if (bytes.length >= 127) {
    let rest = bytes.length - 127
    for (; rest >= 128; rest = Math.floor(rest / 128)) prefix.push((rest % 128) + 128)
    prefix.push(rest)
  }
  return Buffer.concat([Buffer.from(prefix), bytes])
}

/** A header block without the dynamic table: POST, a path, application/grpc, and what else is given. */
export function request(path: string, others: Readonly<Record<string, string>> = {}): Buffer {
  const contentType = Buffer.concat([Buffer.of(0x0f, 0x10), string('application/grpc')])
  const rest = Object.entries(others).map(([name, value]) =>
    Buffer.concat([Buffer.of(0), string(name), string(value)]),
  )
  return Buffer.concat([Buffer.of(0x83, 0x86, 0x04), string(path), contentType, ...rest])
}

/** A header block in as many frames as it takes. */
export function headerFrames(stream: number, block: Buffer, frameFlags = 0): Buffer {
  const frames: Buffer[] = []
  for (let at = 0; at === 0 || at < block.length; at += largestFrameBytes) {
    const part = block.subarray(at, at + largestFrameBytes)
    const isLast = at + largestFrameBytes >= block.length
    const type = at === 0 ? frameTypes.headers : frameTypes.continuation
    frames.push(frame(type, (at === 0 ? frameFlags : 0) | (isLast ? flags.endHeaders : 0), stream, part))
  }
  return Buffer.concat(frames)
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** A message of gRPC behind its prefix. */
export function framed(message: Uint8Array, flag = 0): Buffer {
  return Buffer.concat([Buffer.of(flag), uint32(message.length), message])
}

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** The whole frames in what was received. */
export function framesOf(received: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at + 9 <= received.length; ) {
    const end = at + 9 + received.readUIntBE(at, 3)
    if (end > received.length) break
    const [type = 0, frameFlags = 0] = received.subarray(at + 3, at + 5)
    const payload = received.subarray(at + 9, end)
    frames.push({ type, flags: frameFlags, stream: received.readUInt32BE(at + 5), payload })
    at = end
  }
  return frames
}

/** The codes of the GOAWAY frames. */
export function goAways(received: Buffer): number[] {
  return framesOf(received)
    .filter(({ type }) => type === frameTypes.goAway)
    .map(({ payload }) => payload.readUInt32BE(4))
}

/** The codes of the RST_STREAM frames. */
export function resets(received: Buffer): number[] {
  return framesOf(received)
    .filter(({ type }) => type === frameTypes.rstStream)
    .map(({ payload }) => payload.readUInt32BE(0))
}
