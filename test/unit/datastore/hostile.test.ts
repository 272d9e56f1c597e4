import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate as setImmediatePromise } from 'node:timers/promises'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { Call, Method } from '../../../src/datastore/grpc/http2/call.ts'
import { HpackDecoder } from '../../../src/datastore/grpc/http2/hpack-decoder.ts'
import { Load } from '../../../src/datastore/grpc/http2/load.ts'
import { errorCodes, flags, frameTypes, settings } from '../../../src/datastore/grpc/http2/protocol.ts'
import { MessageWriter } from '../../../src/datastore/grpc/protobuf/message-writer.ts'
import { type ServiceContext, afterCommit } from '../../../src/datastore/grpc/service.ts'
import { Crowd } from './crowd.ts'
import {
  type Attack,
  attack,
  frame,
  framed,
  framesOf,
  goAways,
  headerFrames,
  largestFrameBytes,
  request,
  uint32,
} from './raw-http2.ts'
import { chat, echo, serve } from './served-methods.ts'
import { RawClient, runDatastore, temporaryDirectory } from './support.ts'

/** What has ended the datastore once, and its kind: it ends one call or one connection now. */

const patience = { timeout: 20_000 }

/** The fields of each stream's responses, once all these streams have ended. */
async function responses({ received }: Attack, streams: readonly number[]): Promise<Map<number, Fields>> {
  const ended = (): Map<number, Fields> => {
    const decoder = new HpackDecoder()
    const fields = new Map<number, Fields>()
    for (const { type, stream, payload } of framesOf(received())) {
      if (type !== frameTypes.headers) continue
      const own: Fields = fields.get(stream) ?? {}
      fields.set(stream, own)
      decoder.decode(payload, 0, payload.length, (name, value) => (own[name] = value))
    }
    return fields
  }
  await expect
    .poll(() => [...ended().keys()].filter((stream) => streams.includes(stream)).length, patience)
    .toBe(streams.length)
  return ended()
}

type Fields = Record<string, string>

test('what a client can do is announced', async () => {
  const { listening } = await serve()
  const { received } = await attack(listening)
  await expect.poll(() => framesOf(received()).length, patience).toBeGreaterThan(0)
  const [first] = framesOf(received())
  const announced = new Map<number, number>()
  const payload = first?.payload ?? Buffer.alloc(0)
  for (let at = 0; at < payload.length; at += 6)
    announced.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2))
  expect(first?.type).toBe(frameTypes.settings)
  expect(announced.get(settings.maxHeaderListSize)).toBe(16 * 1024)
  expect(announced.get(settings.maxConcurrentStreams)).toBe(20_000)
})

test.each([
  ['a path of é', (size: number) => request(`/${'\u00e9'.repeat(size)}/a`)],
  ['a path without a service', (size: number) => request('"'.repeat(size))],
  ['a path of %', (size: number) => request(`/a/${'%'.repeat(size)}`)],
])('%s of any length is answered, and its error fits into a frame', async (_, block) => {
  const { listening, stillServes } = await serve()
  const client = await attack(listening)
  const sizes = [1, 100, 1000, 4000, 5000, 8000, 15_000, 16_000, 16_384, 30_000, 60_000]
  for (const [at, size] of sizes.entries())
    await client.send(headerFrames(2 * at + 1, block(size), flags.endStream))
  const found = await responses(
    client,
    sizes.map((_size, at) => 2 * at + 1),
  )
  for (const { payload } of framesOf(client.received()))
    expect(payload.length).toBeLessThanOrEqual(largestFrameBytes)
  for (const [at, size] of sizes.entries()) {
    const fields = found.get(2 * at + 1)
    if (size <= 15_000) expect(fields?.['grpc-status']).toBe('12')
    else if (size >= 16_384) expect(fields).toEqual({ ':status': '431' })
    expect(() => decodeURIComponent(fields?.['grpc-message'] ?? '')).not.toThrow()
  }
  expect(await stillServes()).toBe(true)
})

test('an encoding of any length is refused in a frame', async () => {
  const { listening, stillServes } = await serve()
  const client = await attack(listening)
  const sizes = [1, 5000, 15_000, 60_000]
  for (const [at, size] of sizes.entries()) {
    const stream = 2 * at + 1
    await client.send(headerFrames(stream, request('/a/Echo', { 'grpc-encoding': '\u00e9'.repeat(size) })))
    await client.send(frame(frameTypes.data, flags.endStream, stream, framed(Buffer.from('x'), 1)))
  }
  const found = await responses(client, [1, 3, 5, 7])
  expect([...found.values()].map((fields) => fields['grpc-status'] ?? fields[':status'])).toEqual([
    '12',
    '12',
    '12',
    '431',
  ])
  expect(await stillServes()).toBe(true)
})

test('an error is cut to what the client takes', async () => {
  const { listening } = await serve()
  const client = await attack(listening)
  const entry = Buffer.concat([Buffer.of(0, settings.maxHeaderListSize), uint32(300)])
  await client.send(frame(frameTypes.settings, 0, 0, entry))
  await client.send(headerFrames(1, request(`/${'x'.repeat(1000)}/a`), flags.endStream))
  const fields = (await responses(client, [1])).get(1) ?? {}
  expect(fields['grpc-message']).toMatch(/^unknown service x+$/)
  const bytes = Object.entries(fields).reduce(
    (sum, [name, value]) => sum + name.length + value.length + 32,
    0,
  )
  expect(bytes).toBeLessThanOrEqual(300)
})

test('header blocks beyond all bounds end their connection, and no other', async () => {
  const { listening, stillServes, told } = await serve()
  const { socket, send, received } = await attack(listening)
  await send(headerFrames(1, request(`/${'x'.repeat(200_000)}/a`)))
  await expect.poll(() => socket.destroyed, patience).toBe(true)
  for (const code of goAways(received())) expect(code).toBe(errorCodes.enhanceYourCalm)
  expect(told).toMatchObject([{ level: 'warn', fields: { error: 'header block too large' } }])
  expect(await stillServes()).toBe(true)
})

const broken = {
  get framedBytes(): number {
    throw new Error('broken')
  },
} as MessageWriter

test.each<[string, Method]>([
  ['while a request is read', { kind: 'unary', handle: (_request, call) => call.reply(broken) }],
  ['later', { kind: 'unary', handle: (_request, call) => void setImmediate(() => call.send(broken)) }],
])('an error in sending a reply %s ends its connection, and no other', async (_, method) => {
  const { listening, stillServes, told } = await serve({ '/a/Broken': method })
  for (let round = 0; round < 3; round++) {
    const { socket, send, received } = await attack(listening)
    await send(headerFrames(1, request('/a/Broken')))
    await send(frame(frameTypes.data, flags.endStream, 1, framed(Buffer.alloc(0))))
    await expect.poll(() => socket.destroyed, patience).toBe(true)
    expect(goAways(received())).toEqual([errorCodes.internalError])
  }
  // Told once, however often it happens.
  expect(told).toMatchObject([{ level: 'error', message: 'closing a connection after an error' }])
  expect(await stillServes()).toBe(true)
})

test('an error in what waits for the disk ends its call, and others hear of the same commit', async () => {
  const waiting: ((isCommitted: boolean) => void)[] = []
  const engine = { afterCommit: (callback: (isCommitted: boolean) => void) => void waiting.push(callback) }
  const context = { engine } as unknown as ServiceContext
  const { listening, told } = await serve({
    '/a/Wait': {
      kind: 'unary',
      handle: (bytes, call) =>
        afterCommit(context, call, () => {
          if (bytes.length === 0) throw new Error('broken')
          echo.handle(bytes, call)
        }),
    },
  })
  const client = new RawClient(listening)
  const outcomes = Promise.allSettled(
    [Buffer.alloc(0), Buffer.from('x')].map((bytes) => client.unary('/a/Wait', bytes)),
  )
  await expect.poll(() => waiting.length, patience).toBe(2)
  for (const callback of waiting) callback(true)
  expect(await outcomes).toMatchObject([
    { reason: { message: '13 INTERNAL: internal error' } },
    { value: Buffer.from('x') },
  ])
  expect(told).toMatchObject([
    { level: 'error', message: 'cannot serve a call', fields: { error: 'broken' } },
  ])
})

test('many expensive requests of one client leave turns to the others', async () => {
  let served = 0
  let servedBefore = 0
  const { listening } = await serve({
    '/a/Slow': {
      kind: 'unary',
      handle: () => {
        served++
        const endMs = performance.now() + 2
        while (performance.now() < endMs);
      },
    },
    '/a/Quick': {
      kind: 'unary',
      handle: (bytes, call) => {
        servedBefore = served
        echo.handle(bytes, call)
      },
    },
  })
  const quick = new RawClient(listening)
  await quick.unary('/a/Quick', Buffer.alloc(0))
  const { send } = await attack(listening)
  const requests = Array.from({ length: 300 }, (_, at) => {
    const head = frame(frameTypes.headers, flags.endHeaders, 2 * at + 1, request('/a/Slow'))
    return Buffer.concat([head, frame(frameTypes.data, flags.endStream, 2 * at + 1, framed(Buffer.alloc(0)))])
  })
  await send(Buffer.concat(requests))
  await expect.poll(() => served, patience).toBeGreaterThan(0)
  await quick.unary('/a/Quick', Buffer.alloc(0))
  expect(servedBefore).toBeLessThan(300)
  await expect.poll(() => served, patience).toBe(300)
})

/** Leaves replies without a window; `count` of them are asked for on one stream. */
async function askWithoutWindow(client: Attack, count: number): Promise<void> {
  const window = Buffer.concat([Buffer.of(0, settings.initialWindowSize), uint32(0)])
  await client.send(frame(frameTypes.settings, 0, 0, window))
  await client.send(headerFrames(1, request('/a/Chat')))
  const tiny = Buffer.concat(Array.from({ length: 2000 }, () => framed(Buffer.of(1))))
  const data = frame(frameTypes.data, 0, 1, tiny)
  for (let asked = 0; asked < count && !client.socket.destroyed; asked += 2000) await client.send(data)
}

test('very many small replies are sent as quickly as few, once there is room', async () => {
  const { listening } = await serve({ '/a/Chat': chat })
  const client = await attack(listening)
  await askWithoutWindow(client, 200_000)
  await client.send(frame(frameTypes.data, flags.endStream, 1))
  await client.send(frame(frameTypes.windowUpdate, 0, 0, uint32(2 ** 30)))
  await client.send(frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 30)))
  // Each is a frame of its own.
  const expected = 200_000 * 15
  let bytes = 0
  await new Promise<void>((resolve) => {
    client.socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes >= expected) resolve()
    })
  })
  expect(bytes).toBeGreaterThanOrEqual(expected)
})

test('very many small replies that are not read count for what keeps them', async () => {
  const { listening, stillServes } = await serve({ '/a/Chat': chat })
  const client = await attack(listening)
  // Of 6 bytes each, far below 64 MB.
  await askWithoutWindow(client, 400_000)
  await expect.poll(() => client.socket.destroyed, patience).toBe(true)
  for (const code of goAways(client.received())) expect(code).toBe(errorCodes.enhanceYourCalm)
  expect(await stillServes()).toBe(true)
})

test('what piles up for one connection without an end ends it', async () => {
  const writer = new MessageWriter()
  let sent = 0
  const { listening, stillServes } = await serve({
    '/a/Flood': {
      kind: 'unary',
      handle: (_bytes, call) => {
        for (; call.isOpen && sent < 400; sent++) {
          writer.reset().raw(Buffer.alloc(1024 * 1024))
          call.send(writer)
        }
      },
    },
  })
  const { socket, send, received } = await attack(listening)
  await send(headerFrames(1, request('/a/Flood')))
  await send(frame(frameTypes.data, flags.endStream, 1, framed(Buffer.alloc(0))))
  await expect.poll(() => socket.destroyed, patience).toBe(true)
  expect(goAways(received())).toEqual([errorCodes.enhanceYourCalm])
  expect(sent).toBeLessThan(300)
  expect(await stillServes()).toBe(true)
})

test.each(['queued', 'partial'] as const)(
  'who has most of what is %s is cut off when all have too much',
  async (what) => {
    const load = new Load()
    const broken: string[] = []
    const add =
      what === 'queued' ? (bytes: number) => load.addQueued(bytes) : (bytes: number) => load.addPartial(bytes)
    const connect = (name: string, bytes: number): void => {
      const connection = {
        queuedBytes: bytes,
        partialBytes: bytes,
        openStreams: 0,
        breakOff: () => {
          broken.push(name)
          load.connections.delete(connection)
          add(-bytes)
        },
      }
      load.connections.add(connection)
      add(bytes)
    }
    const megabyte = 1024 * 1024
    const limit = what === 'queued' ? 512 : 256
    connect('one', 10 * megabyte)
    connect('two', (limit - 20) * megabyte)
    await setImmediatePromise()
    expect(broken).toEqual([])
    connect('three', 11 * megabyte)
    await setImmediatePromise()
    expect(broken).toEqual(['two'])
    connect('four', 100 * megabyte)
    await setImmediatePromise()
    expect(broken).toEqual(['two'])
  },
)

test('calls that are never ended leave room for those of others', async () => {
  const { listening, stillServes, told } = await serve({ '/a/Chat': chat })
  const clients = await Promise.all(Array.from({ length: 5 }, () => attack(listening)))
  const open = frame(frameTypes.headers, flags.endHeaders, 0, request('/a/Chat'))
  for (const { send } of clients) {
    for (let stream = 1; stream < 40_000; ) {
      const opens: Buffer[] = []
      for (const end = stream + 4000; stream < end; stream += 2) {
        const one = Buffer.from(open)
        one.writeUInt32BE(stream, 5)
        opens.push(one)
      }
      await send(Buffer.concat(opens))
    }
  }
  await expect.poll(() => clients.filter(({ socket }) => socket.destroyed).length, patience).toBe(1)
  expect(told).toMatchObject([{ fields: { error: 'calls are not ended' } }])
  expect(await stillServes()).toBe(true)
})

test('large replies that many ask for in one turn are not all made', async () => {
  const calls: Call[] = []
  const { listening, stillServes } = await serve({
    '/a/Large': { kind: 'unary', handle: (_bytes, call) => void calls.push(call) },
  })
  const asking = Buffer.concat([
    frame(frameTypes.settings, 0, 0, Buffer.concat([Buffer.of(0, settings.initialWindowSize), uint32(0)])),
    headerFrames(1, request('/a/Large')),
    frame(frameTypes.data, flags.endStream, 1, framed(Buffer.alloc(0))),
  ])
  const clients = await Promise.all(Array.from({ length: 12 }, () => attack(listening)))
  for (const { send } of clients) await send(asking)
  await expect.poll(() => calls.length, patience).toBe(12)
  const writer = new MessageWriter()
  for (const call of calls) {
    writer.reset().raw(Buffer.alloc(90 * 1024 * 1024))
    call.reply(writer)
  }
  const kept = calls.filter(({ queuedBytes }) => queuedBytes > 0)
  expect(kept).toHaveLength(6)
  expect(calls.filter(({ isOpen }) => isOpen)).toEqual(kept)
  expect(await stillServes()).toBe(true)
})

test('a client that never sends its preface is let go', async () => {
  const { listening, stillServes } = await serve()
  await stillServes()
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const { hostname, port } = new URL(listening)
  const socket = connect(Number(port), hostname)
  onTestFinished(() => void socket.destroy())
  socket.write('PRI * HTTP/2.0\r\n')
  // The server's first frames show that it has the connection.
  await once(socket, 'data')
  socket.on('error', () => undefined)
  const closed = new Promise((resolve) => socket.once('close', resolve))
  vi.advanceTimersByTime(10_000)
  await closed
  vi.useRealTimers()
  expect(await stillServes()).toBe(true)
})

test('one connection too many is turned away, and those that are there go on', async () => {
  const { listening, stillServes, told } = await serve()
  await stillServes()
  const crowd = new Crowd()
  await crowd.connect(listening, 1010)
  // One of the thousand is the client that goes on.
  await expect.poll(() => crowd.closed, patience).toBe(11)
  expect(told).toEqual([
    {
      level: 'warn',
      fields: { limit: 1000 },
      message: 'turning a client away: there are too many connections',
    },
  ])
  expect(await stillServes()).toBe(true)
  crowd.leave()
  await expect.poll(() => crowd.closed, patience).toBe(1010)
  const other = new RawClient(listening)
  expect((await other.unary('/a/Echo', Buffer.from('x'))).toString()).toBe('x')
})

test('connections that say nothing keep no client out', async () => {
  const { listening, stillServes } = await serve()
  await stillServes()
  const crowd = new Crowd()
  await crowd.connect(listening, 1000)
  const other = new RawClient(listening, { 'grpc.use_local_subchannel_pool': 1 })
  expect((await other.unary('/a/Echo', Buffer.from('x'))).toString()).toBe('x')
  expect(await stillServes()).toBe(true)
})

test('a process that has too many files open goes on serving', async () => {
  const program = new URL('./few-files.ts', import.meta.url).pathname
  const path = join(temporaryDirectory(), 'state.db')
  const script = 'ulimit -n 60 && exec "$0" "$@"'
  const child: ChildProcess = spawn('bash', ['-c', script, process.execPath, program, path], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines: Record<string, string>[] = []
  createInterface({ input: child.stdout as NonNullable<ChildProcess['stdout']> }).on('line', (line) =>
    lines.push(JSON.parse(line) as Record<string, string>),
  )
  await expect.poll(() => lines.length, patience).toBeGreaterThan(0)
  const { listening = '', metricsUrl = '' } = lines.shift() ?? {}
  const client = new RawClient(listening)
  const check = '/grpc.health.v1.Health/Check'
  expect((await client.unary(check, Buffer.alloc(0))).length).toBeGreaterThan(0)
  const crowd = new Crowd()
  for (const url of [listening, metricsUrl]) await crowd.connect(url, 60)
  await expect.poll(() => crowd.closed, patience).toBeGreaterThan(50)
  expect((await client.unary(check, Buffer.alloc(0))).length).toBeGreaterThan(0)
  crowd.leave()
  await expect.poll(() => crowd.closed, patience).toBe(120)
  expect((await fetch(`${metricsUrl}/metrics`)).status).toBe(200)
  expect(lines.filter(({ failed }) => failed !== undefined)).toEqual([])
  const ended = once(child, 'exit')
  child.stdin?.end()
  expect(await ended).toEqual([0, null])
})

test('a request for metrics is answered whatever it asks for', async () => {
  const loopback = { host: '127.0.0.1', port: 0 }
  const path = join(temporaryDirectory(), 'state.db')
  const { metricsUrl = '' } = await runDatastore({ path, metricsListen: loopback })
  const { hostname, port } = new URL(metricsUrl)
  const statusOf = async (target: string): Promise<number> => {
    const socket = connect(Number(port), hostname)
    let answer = ''
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
    socket.write(`GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    await once(socket, 'close')
    return Number(/^HTTP\/1.1 (\d+) /.exec(answer)?.[1])
  }
  for (const target of ['//', '//metrics', 'http://', '/%', '*', `/${'a'.repeat(7000)}`]) {
    expect(await statusOf(target)).toBe(404)
  }
  for (const target of ['http://a:b:c/metrics', '/metrics?', '/health?exclude=%ff&%', '/livez??//']) {
    expect(await statusOf(target)).toBe(200)
  }
  expect(await statusOf(`/${'a'.repeat(9000)}`)).toBe(431)
})
