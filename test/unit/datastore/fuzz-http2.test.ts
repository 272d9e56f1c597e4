import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Call, Method } from '../../../src/datastore/grpc/http2/call.ts'
import { errorCodes, flags, frameTypes, settings } from '../../../src/datastore/grpc/http2/protocol.ts'
import { attack, frame, goAways, request, resets, string, uint32 } from './raw-http2.ts'
import { chat, maxMessageBytes, serve, type Served } from './served-methods.ts'

/** Clients that mean harm: whatever they send, the server serves the others. */

/** A server, and the calls that it holds open. */
async function serveHolding(): Promise<Served & { calls: Set<Call> }> {
  const calls = new Set<Call>()
  const hold: Method = {
    kind: 'streaming',
    open: (call) => {
      calls.add(call)
      call.onCancel = () => calls.delete(call)
      return { message: () => undefined, halfClose: () => undefined }
    },
  }
  return { ...(await serve({ '/a/Hold': hold, '/a/Chat': chat })), calls }
}

test('streams that are opened and reset at once leave nothing behind', async () => {
  const { listening, calls, stillServes } = await serveHolding()
  const { send } = await attack(listening)
  for (let round = 0; round < 100; round++) {
    const frames: Buffer[] = []
    for (let count = 0; count < 300; count++) {
      const stream = 2 * (round * 300 + count) + 1
      frames.push(frame(frameTypes.headers, flags.endHeaders, stream, request('/a/Hold')))
      frames.push(frame(frameTypes.rstStream, 0, stream, uint32(errorCodes.cancel)))
    }
    await send(Buffer.concat(frames))
  }
  expect(await stillServes()).toBe(true)
  await expect.poll(() => calls.size, { timeout: 20_000 }).toBe(0)
})

test('header blocks without an end are cut off', async () => {
  for (const size of [0, 64, 16_000]) {
    const { listening, stillServes } = await serveHolding()
    const { socket, send, received } = await attack(listening)
    await send(frame(frameTypes.headers, 0, 1, request('/a/Echo')))
    const part = frame(frameTypes.continuation, 0, 1, Buffer.alloc(size, 0x82))
    for (let count = 0; count < 3000 && !socket.destroyed; count++) await send(part)
    await expect.poll(() => socket.destroyed, { timeout: 20_000 }).toBe(true)
    // What the kernel drops with the connection may have had the reason in it.
    for (const code of goAways(received())) expect(code).toBe(errorCodes.enhanceYourCalm)
    expect(await stillServes()).toBe(true)
  }
})

test('a header that is repeated out of the table costs nothing', async () => {
  const { listening, stillServes } = await serveHolding()
  const { send } = await attack(listening)
  const value = 'v'.repeat(3900)
  const literal = Buffer.concat([Buffer.of(0x40), string('x'), string(value)])
  const bomb = Buffer.concat([request('/a/Echo'), literal, Buffer.alloc(12_000, 0xbe)])
  for (let stream = 1; stream < 400; stream += 2) {
    await send(frame(frameTypes.headers, flags.endHeaders | flags.endStream, stream, bomb))
  }
  expect(await stillServes()).toBe(true)
})

test('a flood of settings over many streams does not hold up the others', async () => {
  const { listening, calls, stillServes } = await serveHolding()
  const { send } = await attack(listening)
  const open = Array.from({ length: 5000 }, (_, at) =>
    frame(frameTypes.headers, flags.endHeaders, 2 * at + 1, request('/a/Hold')),
  )
  await send(Buffer.concat(open))
  await expect.poll(() => calls.size, { timeout: 20_000 }).toBe(5000)
  const entries = Array.from({ length: 2700 }, (_, at) =>
    Buffer.concat([Buffer.of(0, settings.initialWindowSize), uint32(at % 2 === 0 ? 0 : 65_535)]),
  )
  const flood = frame(frameTypes.settings, 0, 0, Buffer.concat(entries))
  for (let count = 0; count < 200; count++) await send(flood)
  expect(await stillServes()).toBe(true)
})

test('who does not read the answers to its pings is read from no more', async () => {
  const { listening, stillServes } = await serveHolding()
  const { socket } = await attack(listening)
  socket.pause()
  const pings = Buffer.concat(
    Array.from({ length: 4000 }, () => frame(frameTypes.ping, 0, 0, Buffer.alloc(8))),
  )
  // The answers fill the server's queue and the kernel's buffers, which take some megabytes.
  const floodBytes = 200 * 1024 * 1024
  for (let sent = 0; sent < floodBytes; sent += pings.length) socket.write(pings)
  let unsent = 0
  while (unsent !== socket.writableLength) {
    unsent = socket.writableLength
    await delay(1000)
  }
  expect(unsent).toBeGreaterThan(floodBytes / 2)
  expect(await stillServes()).toBe(true)
})

test('messages that are begun on many streams and never ended are bounded', async () => {
  const { listening, calls, stillServes } = await serveHolding()
  const { send, received } = await attack(listening)
  const prefix = Buffer.concat([Buffer.of(0), uint32(maxMessageBytes)])
  const part = Buffer.alloc(16_000)
  for (let at = 0; at < 300; at++) {
    const stream = 2 * at + 1
    await send(frame(frameTypes.headers, flags.endHeaders, stream, request('/a/Hold')))
    await send(frame(frameTypes.data, 0, stream, prefix))
    for (let count = 0; count < 60; count++) await send(frame(frameTypes.data, 0, stream, part))
  }
  expect(await stillServes()).toBe(true)
  // Of 300 messages of a megabyte some are kept, the others are refused.
  await expect.poll(() => calls.size, { timeout: 20_000 }).toBe(300)
  const refused = [...calls].filter(({ isOpen }) => !isOpen)
  expect(refused.length).toBeGreaterThan(200)
  await expect.poll(() => resets(received()).length, { timeout: 20_000 }).toBe(refused.length)
})

test('who has no window for replies gets no more of them', async () => {
  const { listening, stillServes } = await serveHolding()
  const { send, received } = await attack(listening)
  const body = Buffer.concat([Buffer.of(0), uint32(16_000), Buffer.alloc(16_000)])
  // The connection has a window of 65,535 bytes, which is never renewed: of 160 MB 64 are kept.
  const asked = 10_000
  for (let at = 0; at < asked; at++) {
    await send(frame(frameTypes.headers, flags.endHeaders, 2 * at + 1, request('/a/Echo')))
    await send(frame(frameTypes.data, flags.endStream, 2 * at + 1, body))
  }
  expect(await stillServes()).toBe(true)
  await expect.poll(() => resets(received()).length, { timeout: 20_000 }).toBeGreaterThan(asked / 2)
  expect(new Set(resets(received()))).toEqual(new Set([errorCodes.refusedStream]))
})

test('who keeps asking on a stream that has no window is cut off', async () => {
  const { listening, stillServes } = await serveHolding()
  const { socket, send, received } = await attack(listening)
  await send(
    frame(frameTypes.settings, 0, 0, Buffer.concat([Buffer.of(0, settings.initialWindowSize), uint32(0)])),
  )
  await send(frame(frameTypes.headers, flags.endHeaders, 1, request('/a/Chat')))
  const ask = Buffer.concat([Buffer.of(0), uint32(16_000), Buffer.alloc(16_000)])
  for (let count = 0; count < 10_000 && !socket.destroyed; count++)
    await send(frame(frameTypes.data, 0, 1, ask))
  await expect.poll(() => socket.destroyed, { timeout: 20_000 }).toBe(true)
  for (const code of goAways(received())) expect(code).toBe(errorCodes.enhanceYourCalm)
  expect(await stillServes()).toBe(true)
})

test('frames of random kinds, flags and streams never stop the server', async () => {
  const { listening, stillServes } = await serveHolding()
  let state = 7
  const random = (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return (state >>> 8) % limit
  }
  for (let round = 0; round < 200; round++) {
    const { socket, send } = await attack(listening)
    for (let count = 0; count < 40 && !socket.destroyed; count++) {
      const payload = random(3) === 0 ? request('/a/Hold') : Buffer.alloc(random(64)).map(() => random(256))
      await send(frame(random(11), random(256), random(4) === 0 ? 0 : 1 + random(9), payload))
    }
    socket.destroy()
  }
  expect(await stillServes()).toBe(true)
})
