import { gzipSync } from 'node:zlib'
import { flags, frameTypes, settings } from '../../../src/datastore/grpc/http2/protocol.ts'
import { type Random, oneOf, randomBytes } from '../../random.ts'
import { frame, framed, largestFrameBytes, preface, request, string, uint32 } from './raw-http2.ts'
import { message } from './wire.ts'

/** What a client sends on one connection to the datastore: sessions that are right, and what makes them wrong. */

interface Piece {
  type: number
  flags: number
  stream: number
  payload: Buffer
  /** What the frame says that its length is, where it lies. */
  length?: number
}

const keys = ['', '\0', 'a', 'b', 'a/b', 'k'.repeat(300)]
const integers = [0n, 1n, 2n, 7n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n]
const sizes = [0, 1, 126, 127, 128, 4000, 16_383, 16_384, 16_385, 30_000, 60_000, 66_000]
const bomb = gzipSync(Buffer.alloc(20 * 1024 * 1024))

type MakeMessage = (random: Random) => Buffer

const key = (random: Random): string => oneOf(random, keys)
const integer = (random: Random): bigint => oneOf(random, integers)
const put: MakeMessage = (random) =>
  message({ 1: key(random), 2: randomBytes(random, 2000), 3: random(4) === 0 ? integer(random) : 0n })
const range: MakeMessage = (random) =>
  message({ 1: key(random), 2: key(random), 3: integer(random), 4: random(4) === 0 ? integer(random) : 0n })
const deleteRange: MakeMessage = (random) => message({ 1: key(random), 2: key(random), 3: 1 })

/** Nested as deep as chance has it. */
function txn(random: Random, depth = 0): Buffer {
  const parts: Buffer[] = []
  const makers: readonly MakeMessage[] = [range, put, deleteRange, (next) => txn(next, depth + 1)]
  for (let count = random(5); count > 0; count--) {
    const operation = random(depth < 6 ? 4 : 3)
    const bytes = (makers[operation] as MakeMessage)(random)
    parts.push(message({ [2 + random(2)]: message({ [operation + 1]: bytes }) }))
  }
  if (random(2) === 0) parts.push(message({ 1: message({ 1: random(4), 2: random(6), 3: key(random) }) }))
  return Buffer.concat(parts)
}

function watch(random: Random): Buffer {
  const create = {
    1: key(random),
    2: key(random),
    3: integer(random),
    4: random(2),
    6: random(2),
    8: random(2),
  }
  const choice = random(6)
  if (choice === 0) return message({ 2: message({ 1: integer(random) }) })
  return choice === 1 ? message({ 3: '' }) : message({ 1: message(create) })
}

const unary: readonly (readonly [path: string, make: MakeMessage])[] = [
  ['/etcdserverpb.KV/Put', put],
  ['/etcdserverpb.KV/Range', range],
  ['/etcdserverpb.KV/RangeStream', range],
  ['/etcdserverpb.KV/DeleteRange', deleteRange],
  ['/etcdserverpb.KV/Txn', (random) => txn(random)],
  ['/etcdserverpb.KV/Compact', (random) => message({ 1: random(20) })],
  ['/etcdserverpb.Lease/LeaseGrant', (random) => message({ 1: integer(random), 2: integer(random) })],
  ['/etcdserverpb.Lease/LeaseRevoke', (random) => message({ 1: integer(random) })],
  ['/etcdserverpb.Lease/LeaseTimeToLive', (random) => message({ 1: integer(random), 2: 1 })],
  ['/etcdserverpb.Maintenance/Status', () => Buffer.alloc(0)],
  ['/etcdserverpb.Maintenance/HashKV', (random) => message({ 1: integer(random) })],
  ['/etcdserverpb.Cluster/MemberList', () => Buffer.alloc(0)],
  ['/v3lockpb.Lock/Lock', (random) => message({ 1: key(random), 2: integer(random) })],
  ['/v3electionpb.Election/Observe', (random) => message({ 1: key(random) })],
  ['/grpc.health.v1.Health/Watch', () => Buffer.alloc(0)],
  ['/etcdserverpb.KV/Nothing', put],
]
const streams: readonly (readonly [path: string, make: MakeMessage])[] = [
  ['/etcdserverpb.Watch/Watch', watch],
  ['/etcdserverpb.Lease/LeaseKeepAlive', (random) => message({ 1: integer(random) })],
]

/** Headers that gRPC's clients send, and those that they could. */
function randomHeaders(random: Random): Record<string, string> {
  const headers: Record<string, string> = {}
  if (random(4) === 0) headers['grpc-encoding'] = oneOf(random, ['gzip', 'identity', 'é', ''])
  if (random(4) === 0) headers['grpc-timeout'] = oneOf(random, ['1S', '99999999H', '', '-1n', 'x'])
  if (random(4) === 0) headers['trace-bin'] = oneOf(random, ['AAAA', '!', '=', 'A'.repeat(500)])
  if (random(6) === 0) headers['x'] = 'x'.repeat(oneOf(random, sizes))
  return headers
}

function randomMessage(random: Random, make: MakeMessage): Buffer {
  const bytes = make(random)
  switch (random(12)) {
    case 0:
      return framed(gzipSync(bytes), 1)
    case 1:
      return framed(gzipSync(bytes).subarray(0, random(30)), 1)
    case 2:
      return framed(oneOf(random, [bomb, randomBytes(random, 50)]), oneOf(random, [1, 2, 255]))
    default:
      return framed(bytes)
  }
}

/** A header block in HEADERS and, where it is long or chance has it, CONTINUATION. */
function headerPieces(random: Random, stream: number, block: Buffer): Piece[] {
  const partBytes = random(5) === 0 ? 1 + random(200) : largestFrameBytes
  const pieces: Piece[] = []
  for (let at = 0; at === 0 || at < block.length; at += partBytes) {
    const isLast = at + partBytes >= block.length
    const type = at === 0 ? frameTypes.headers : frameTypes.continuation
    const payload = block.subarray(at, at + partBytes)
    pieces.push({ type, flags: isLast ? flags.endHeaders : 0, stream, payload })
  }
  return pieces
}

/** A header block that no client would send. */
function wrongBlock(random: Random): Buffer {
  switch (random(6)) {
    case 0:
      return request('é'.repeat(oneOf(random, sizes)))
    case 1:
      return request('/etcdserverpb.KV/Put', { 'grpc-encoding': 'ÿ'.repeat(oneOf(random, sizes)) })
    case 2:
      // A new size of the table in the middle, and an entry that is not there.
      return Buffer.concat([Buffer.of(0x20 + random(32)), request('/a/b'), Buffer.of(0x80 + random(128))])
    case 3:
      // An entry of the table that is repeated as often as there is room for.
      return Buffer.concat([
        Buffer.of(0x40),
        string('x'),
        string('v'.repeat(3900)),
        Buffer.alloc(12_000, 0xbe),
      ])
    case 4:
      return Buffer.concat([Buffer.of(0, 0x80 + random(100)), randomBytes(random, 200)])
    default:
      return randomBytes(random, 300)
  }
}

function callPieces(random: Random, stream: number): Piece[] {
  const isStream = random(3) === 0
  const [path, make] = oneOf(random, isStream ? streams : unary)
  const isWrong = random(10) === 0
  const block = isWrong ? wrongBlock(random) : request(path, randomHeaders(random))
  const pieces = headerPieces(random, stream, block)
  const count = isStream ? random(6) : 1
  const body = Buffer.concat(Array.from({ length: count }, () => randomMessage(random, make)))
  // Whatever the encoding is, the message claims to have it.
  if (isWrong && body.length > 0 && random(2) === 0) body[0] = 1
  for (let at = 0; at < body.length; at += largestFrameBytes) {
    const payload = body.subarray(at, at + largestFrameBytes)
    pieces.push({ type: frameTypes.data, flags: 0, stream, payload })
  }
  const end = { type: frameTypes.data, flags: flags.endStream, stream, payload: Buffer.alloc(0) }
  return random(4) > 0 ? [...pieces, end] : pieces
}

function setting(random: Random): Buffer {
  const name = oneOf(random, [...Object.values(settings), 0, 99])
  const value = oneOf(random, [0, 1, 100, 4096, 16_384, 65_535, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1])
  return Buffer.concat([Buffer.of(0, name), uint32(value)])
}

/** A frame that belongs to no call. */
function controlPiece(random: Random, stream: number): Piece {
  const number = uint32(oneOf(random, [0, 1, 8, 65_535, 2 ** 31 - 1, 2 ** 32 - 1]))
  const none = Buffer.alloc(0)
  const pair = Buffer.concat([setting(random), setting(random)])
  return oneOf<Piece>(random, [
    { type: frameTypes.ping, flags: random(2), stream: 0, payload: Buffer.alloc(8) },
    { type: frameTypes.settings, flags: 0, stream: 0, payload: pair },
    { type: frameTypes.settings, flags: flags.ack, stream: 0, payload: none },
    { type: frameTypes.windowUpdate, flags: 0, stream: random(2) * stream, payload: number },
    { type: frameTypes.rstStream, flags: 0, stream, payload: number },
    { type: frameTypes.priority, flags: 0, stream, payload: Buffer.alloc(5) },
    { type: frameTypes.goAway, flags: 0, stream: 0, payload: Buffer.concat([number, number]) },
    { type: frameTypes.data, flags: 0, stream, payload: none },
    { type: 10 + random(246), flags: random(256), stream, payload: randomBytes(random, 100) },
  ])
}

type Mutation = (pieces: Piece[], at: number, random: Random) => void

const alter =
  (change: (piece: Piece, random: Random) => void): Mutation =>
  (pieces, at, random) =>
    change(pieces[at] as Piece, random)

/** What makes a session wrong, or only unusual. */
const mutations: readonly Mutation[] = [
  (pieces, at, random) => void pieces.splice(at, 1 + random(3)),
  (pieces, at) => void pieces.splice(at, 0, { ...(pieces[at] as Piece) }),
  (pieces, at, random) => void pieces.splice(random(pieces.length), 0, ...pieces.splice(at, 1)),
  (pieces, at, random) => {
    const { stream } = pieces[at] as Piece
    pieces.splice(at, 0, ...Array.from({ length: 1 + random(50) }, () => controlPiece(random, stream)))
  },
  alter((piece, random) => (piece.payload = piece.payload.subarray(0, random(piece.payload.length + 1)))),
  alter((piece, random) => (piece.payload = Buffer.concat([piece.payload, randomBytes(random, 40)]))),
  alter((piece, random) => {
    piece.payload = Buffer.from(piece.payload)
    for (let count = random(6); count > 0 && piece.payload.length > 0; count--)
      piece.payload[random(piece.payload.length)] = random(256)
  }),
  alter((piece, random) => (piece.type = random(12))),
  alter((piece, random) => (piece.flags = random(256))),
  alter((piece, random) => {
    piece.stream = oneOf(random, [0, 1, 2, 3, piece.stream + 2, 2 ** 31 - 1, 2 ** 32 - 1])
  }),
  alter((piece, random) => {
    piece.length = oneOf(random, [0, 1, piece.payload.length + 1, 16_385, 2 ** 24 - 1])
  }),
  alter((piece, random) => {
    piece.payload = Buffer.concat([Buffer.of(random(8)), piece.payload, Buffer.alloc(random(8))])
    piece.flags |= flags.padded
  }),
]

function bytesOf({ type, flags: frameFlags, stream, payload, length }: Piece): Buffer {
  const bytes = frame(type, frameFlags, stream, payload)
  if (length !== undefined) bytes.writeUIntBE(length, 0, 3)
  return bytes
}

/** All that one client sends; one in eight sessions is as it should be. */
export function randomSession(random: Random): Buffer {
  const pieces: Piece[] = [{ type: frameTypes.settings, flags: 0, stream: 0, payload: Buffer.alloc(0) }]
  for (let call = random(8); call >= 0; call--) {
    const stream = pieces.length * 2 + 1
    pieces.push(...callPieces(random, stream))
    if (random(3) === 0) pieces.push(controlPiece(random, stream))
  }
  let changes = random(8) === 0 ? 0 : 1 + random(4)
  for (; changes > 0 && pieces.length > 0; changes--) {
    oneOf(random, mutations)(pieces, random(pieces.length), random)
  }
  const bytes = Buffer.concat([preface, ...pieces.map(bytesOf)])
  if (random(20) === 0) bytes[random(preface.length)] = random(256)
  return random(10) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes
}
