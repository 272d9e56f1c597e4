import { once } from 'node:events'
import * as http2 from 'node:http2'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import * as grpc from '@grpc/grpc-js'
import { expect, onTestFinished, test } from 'vitest'
import type { Call, Method } from '../../../src/datastore/grpc/http2/call.ts'
import { StatusError, codes } from '../../../src/datastore/grpc/status.ts'
import { attack, frame as frameOf, goAways } from './raw-http2.ts'
import { chat, maxMessageBytes, serve, written } from './served-methods.ts'
import { RawClient } from './support.ts'

function post(session: http2.ClientHttp2Session, path: string): http2.ClientHttp2Stream {
  return session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc' })
}

/** Hands out the server's side of the calls that come in. */
function held(): { method: Method; next: () => Promise<Call> } {
  const waiting: ((call: Call) => void)[] = []
  const calls: Call[] = []
  return {
    method: {
      kind: 'unary',
      handle: (_request, call) => {
        const resolve = waiting.shift()
        if (resolve === undefined) calls.push(call)
        else resolve(call)
      },
    },
    next: () => {
      const call = calls.shift()
      return call === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(call)
    },
  }
}

test('messages of every size come back as they were sent', async () => {
  const client = new RawClient((await serve()).listening)
  for (const size of [0, 1, 16_378, 16_379, 16_380, 65_535, 65_536, 1_000_000, maxMessageBytes]) {
    const request = Buffer.alloc(size, `${size} `)
    expect((await client.unary('/a/Echo', request)).equals(request)).toBe(true)
  }
})

test('many calls at once on one connection get their own replies', async () => {
  const client = new RawClient((await serve()).listening)
  const requests = Array.from({ length: 2000 }, (_, at) => Buffer.alloc(at * 3, `${at}.`))
  const replies = await Promise.all(requests.map((request) => client.unary('/a/Echo', request)))
  expect(replies.every((reply, at) => reply.equals(requests[at] as Buffer))).toBe(true)
})

test('a stream carries messages both ways, however they are split', async () => {
  const client = new RawClient((await serve({ '/a/Echo': chat })).listening)
  const stream = client.stream('/a/Echo')
  const sizes = [0, 1, 5, 70_000, 0, 300_000, 2, 16_384]
  for (const size of sizes) stream.write(Buffer.alloc(size, 1))
  stream.end()
  const received: number[] = []
  for await (const reply of stream) received.push((reply as Buffer).length)
  expect(received).toEqual(sizes)
})

test('a failure has its code and message, whatever is in it', async () => {
  const failing: Method = {
    kind: 'unary',
    handle: () => {
      throw new StatusError(codes.outOfRange, 'étcd: 100% gone\n')
    },
  }
  const client = new RawClient((await serve({ '/a/Fail': failing })).listening)
  await expect(client.unary('/a/Fail', Buffer.alloc(0))).rejects.toMatchObject({
    code: grpc.status.OUT_OF_RANGE,
    details: 'étcd: 100% gone\n',
  })
})

test('what is unknown is named, and a message that is too large is refused', async () => {
  const client = new RawClient((await serve()).listening)
  await expect(client.unary('/a/Other', Buffer.alloc(0))).rejects.toMatchObject({
    code: grpc.status.UNIMPLEMENTED,
    details: 'unknown method Other for service a',
  })
  await expect(client.unary('/a/Echo', Buffer.alloc(maxMessageBytes + 1))).rejects.toMatchObject({
    code: grpc.status.RESOURCE_EXHAUSTED,
    details: `grpc: received message larger than max (${maxMessageBytes + 1} vs. ${maxMessageBytes})`,
  })
  expect(await client.unary('/a/Echo', Buffer.from('still here'))).toEqual(Buffer.from('still here'))
})

test('a client that cancels is noticed', async () => {
  const { method, next } = held()
  const { listening } = await serve({ '/a/Hold': method })
  const session = http2.connect(listening)
  onTestFinished(() => session.destroy())
  const request = post(session, '/a/Hold')
  request.on('error', () => undefined)
  request.end(Buffer.alloc(5))
  const call = await next()
  const canceled = new Promise<void>((resolve) => (call.onCancel = resolve))
  request.close(http2.constants.NGHTTP2_CANCEL)
  await canceled
  expect(call.isOpen).toBe(false)
  call.reply(written(Buffer.from('into the void')))
})

test('a client that vanishes takes its calls with it', async () => {
  const { method, next } = held()
  const { listening } = await serve({ '/a/Hold': method })
  const session = http2.connect(listening)
  session.on('error', () => undefined)
  const request = post(session, '/a/Hold')
  request.on('error', () => undefined)
  request.end(Buffer.alloc(5))
  const call = await next()
  const canceled = new Promise<void>((resolve) => (call.onCancel = resolve))
  session.destroy()
  await canceled
  expect(call.isOpen).toBe(false)
})

test('what a slow client has no window for waits, and goes on when there is room', async () => {
  const { method, next } = held()
  const { listening } = await serve({ '/a/Hold': method })
  const session = http2.connect(listening, { settings: { initialWindowSize: 10 } })
  onTestFinished(() => session.destroy())
  const request = post(session, '/a/Hold')
  request.end(Buffer.alloc(5))
  const call = await next()
  const drained = new Promise<void>((resolve) => (call.onDrain = resolve))
  call.send(written(Buffer.alloc(1000, 7)))
  expect(call.queuedBytes).toBeGreaterThan(0)
  // node:http2 renews a stream's window as its data is read.
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  await drained
  call.end()
  await once(request, 'end')
  expect(Buffer.concat(chunks).length).toBe(1005)
})

test('a reply waits for the connection’s window, and others after it', async () => {
  const { listening } = await serve()
  const client = new RawClient(listening)
  // 65,535 bytes is all that a connection starts with: the replies take ten times that.
  const replies = await Promise.all(
    Array.from({ length: 40 }, () => client.unary('/a/Echo', Buffer.alloc(16_000, 5))),
  )
  expect(replies.every(({ length }) => length === 16_000)).toBe(true)
})

test.each(['while a part is made', 'while the client has no window'])(
  'a reply in parts can fail %s',
  async (moment) => {
    const { method, next } = held()
    const { listening } = await serve({ '/a/Hold': method })
    // Enough for the first part; the rest of a window is renewed when half of it is used.
    const client = new RawClient(listening, { 'grpc-node.flow_control_window': 100_000 })
    const reply = client.unary('/a/Hold', Buffer.alloc(5))
    const call = await next()
    const gone = new StatusError(codes.outOfRange, 'gone')
    let parts = 0
    let released = 0
    call.replyInParts({
      messageBytes: 3_000_000,
      heldBytes: 0,
      write: (writer) => {
        if (parts++ === 3 && moment === 'while a part is made') throw gone
        writer.raw(Buffer.alloc(200_000))
        return true
      },
      release: () => void released++,
    })
    if (moment !== 'while a part is made') call.fail(gone)
    await expect(reply).rejects.toMatchObject({ code: codes.outOfRange, details: 'gone' })
    expect(released).toBe(1)
    expect(call.isOpen).toBe(false)
  },
)

test('what is not gRPC is answered with an HTTP status', async () => {
  const { listening } = await serve()
  const session = http2.connect(listening)
  onTestFinished(() => session.destroy())
  for (const [headers, status] of [
    [{ ':method': 'GET', ':path': '/a/Echo' }, 405],
    [{ ':method': 'POST', ':path': '/a/Echo', 'content-type': 'text/plain' }, 415],
  ] as const) {
    const request = session.request(headers)
    request.end()
    const [response] = (await once(request, 'response')) as [
      http2.IncomingHttpHeaders & { ':status'?: number },
    ]
    expect(response[':status']).toBe(status)
  }
})

test('a peer whose header table is empty understands the replies', async () => {
  const { listening } = await serve()
  const session = http2.connect(listening, { settings: { headerTableSize: 0 } })
  onTestFinished(() => session.destroy())
  for (let round = 0; round < 3; round++) {
    const request = post(session, '/a/Echo')
    request.end(Buffer.alloc(5))
    request.resume()
    const [trailers] = (await once(request, 'trailers')) as [http2.IncomingHttpHeaders]
    expect(trailers['grpc-status']).toBe('0')
  }
})

/** With a payload in hexadecimal digits. */
function frame(type: number, flags: number, stream: number, payload: string): Buffer {
  return frameOf(type, flags, stream, Buffer.from(payload.replaceAll(' ', ''), 'hex'))
}

test.each([
  ['DATA on an idle stream', frame(0, 0, 1, '00'), 1],
  ['HEADERS on an even stream', frame(1, 4, 2, '82'), 1],
  ['a frame that is too large', Buffer.concat([frame(0, 0, 1, '00').fill(0xff, 0, 3)]), 6],
  ['CONTINUATION without HEADERS', frame(9, 4, 1, '82'), 1],
  [
    'a header block that is interrupted',
    Buffer.concat([frame(1, 0, 1, '82'), frame(6, 0, 0, '0000000000000000')]),
    1,
  ],
  ['a header block that cannot be decoded', frame(1, 4, 1, 'ff80 01'), 9],
  ['PUSH_PROMISE', frame(5, 4, 1, '00000002'), 1],
  ['a PING of seven bytes', frame(6, 0, 0, '00000000000000'), 6],
  ['a window beyond its limit', frame(8, 0, 0, '7fffffff'), 3],
  ['a window update of nothing', frame(8, 0, 0, '00000000'), 3],
  ['more padding than payload', Buffer.concat([frame(1, 4, 1, '83'), frame(0, 8, 1, '0500')]), 1],
  ['an initial window beyond its limit', frame(4, 0, 0, '0004 80000000'), 3],
])('%s ends the connection', async (_, bytes, code) => {
  const { socket, received } = await attack((await serve()).listening)
  socket.write(bytes)
  await once(socket, 'close')
  expect(goAways(received())).toEqual([code])
})

test('a client of something else is turned away', async () => {
  const { listening } = await serve()
  const { hostname, port } = new URL(listening)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => undefined)
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  socket.resume()
  await once(socket, 'close')
  expect(socket.destroyed).toBe(true)
})

test('random bytes never stop the server', async () => {
  const { listening } = await serve({ '/a/Stream': chat })
  let state = 42
  for (let round = 0; round < 60; round++) {
    const { socket } = await attack(listening)
    const bytes = Buffer.alloc(200)
    for (let at = 0; at < bytes.length; at++)
      bytes[at] = (state = (state * 1103515245 + 12345) % 2 ** 31) >>> 16
    socket.write(frame(round % 10, bytes[0] as number, 1 + 2 * (round % 3), bytes.toString('hex')))
    socket.write(bytes)
    await delay(1)
    socket.destroy()
  }
  expect(await new RawClient(listening).unary('/a/Echo', Buffer.from('ok'))).toEqual(Buffer.from('ok'))
})

test('frames in pieces of one byte are put together', async () => {
  const { socket } = await attack((await serve()).listening)
  const headers = '83 86 04 07 2f612f4563686f 5f 10 6170706c69636174696f6e2f67727063'
  const request = Buffer.concat([frame(1, 4, 1, headers), frame(0, 9, 1, '02 0000000003 616263 0000')])
  let received = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => (received = Buffer.concat([received, chunk])))
  for (const byte of request) socket.write(Buffer.of(byte))
  await expect.poll(() => received.includes('abc'), { timeout: 10_000 }).toBe(true)
})
