import { once } from 'node:events'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { flags, frameTypes } from '../../../src/datastore/grpc/http2/protocol.ts'
import type { Log } from '../../../src/datastore/log/log.ts'
import { type Lease, Lessor } from '../../../src/datastore/mvcc/lessor.ts'
import type { Store } from '../../../src/datastore/mvcc/store.ts'
import { EtcdClient } from './etcd-client.ts'
import { attack, frame, framed, framesOf, headerFrames, request, uint32 } from './raw-http2.ts'
import { RawClient, message, runDatastore, temporaryDirectory } from './support.ts'

/** Requests that are each right, in numbers that nobody needs. */

const patience = { timeout: 50_000 }

async function serve(): Promise<{
  listening: string
  client: EtcdClient
  metric: (name: string) => Promise<number>
}> {
  const { listening, metricsUrl = '' } = await runDatastore({
    path: join(temporaryDirectory(), 'state.db'),
    metricsListen: { host: '127.0.0.1', port: 0 },
  })
  const client = new EtcdClient(listening)
  onTestFinished(() => client.close())
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`${metricsUrl}/metrics`)).text()
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1])
  }
  return { listening, client, metric }
}

test('watchers are bounded, and their end makes room', async () => {
  const { listening, client, metric } = await serve()
  const { socket, send, received } = await attack(listening)
  await send(frame(frameTypes.windowUpdate, 0, 0, uint32(2 ** 30)))
  await send(headerFrames(1, request('/etcdserverpb.Watch/Watch')))
  const creates = Buffer.concat(
    Array.from({ length: 1000 }, () => framed(message({ 1: message({ 1: 'a' }) }))),
  )
  for (let count = 0; count < 201; count++) {
    for (let at = 0; at < creates.length; at += 16_000)
      await send(frame(frameTypes.data, 0, 1, creates.subarray(at, at + 16_000)))
    // What comes back is about the same.
    await send(frame(frameTypes.windowUpdate, 0, 1, uint32(100_000)))
  }
  await expect.poll(() => received().includes('too many requests'), patience).toBe(true)
  expect(await metric('etcd_debugging_mvcc_watcher_total')).toBe(200_000)
  expect(await client.put('a', Buffer.from('x'))).toBe(2)
  socket.destroy()
  await expect.poll(() => metric('etcd_debugging_mvcc_watcher_total'), patience).toBe(0)
  const events = await client.watch('a')
  await client.put('a', Buffer.from('y'))
  await expect.poll(() => events, patience).toEqual([3])
})

test('the keys of watchers are bounded, and their end makes room', async () => {
  const { listening, client } = await serve()
  const { socket, send, received } = await attack(listening)
  await send(headerFrames(1, request('/etcdserverpb.Watch/Watch')))
  const create = framed(message({ 1: message({ 1: 'k'.repeat(1_000_000) }) }))
  for (let count = 0; count < 70; count++) {
    for (let at = 0; at < create.length; at += 16_000)
      await send(frame(frameTypes.data, 0, 1, create.subarray(at, at + 16_000)))
  }
  await expect.poll(() => received().includes('too many requests'), patience).toBe(true)
  socket.destroy()
  await expect
    .poll(async () => {
      const stream = new RawClient(listening).stream('/etcdserverpb.Watch/Watch')
      stream.on('error', () => undefined)
      stream.write(message({ 1: message({ 1: 'a' }) }))
      const [response] = (await once(stream, 'data')) as [Buffer]
      stream.cancel()
      return response.includes('too many requests')
    }, patience)
    .toBe(false)
  expect(await client.put('a', Buffer.from('x'))).toBe(2)
})

test('progress is told once for all that ask for it together', async () => {
  const { listening } = await serve()
  const { send, received } = await attack(listening)
  await send(headerFrames(1, request('/etcdserverpb.Watch/Watch')))
  const create = framed(message({ 1: message({ 1: 'a' }) }))
  const progress = framed(message({ 3: '' }))
  await send(
    frame(frameTypes.data, 0, 1, Buffer.concat([create, ...Array.from({ length: 2000 }, () => progress)])),
  )
  await send(frame(frameTypes.ping, 0, 0, Buffer.alloc(8)))
  const replies = (): number => framesOf(received()).filter(({ type }) => type === frameTypes.data).length
  await expect
    .poll(
      () =>
        framesOf(received()).some(({ type, flags: got }) => type === frameTypes.ping && got === flags.ack),
      patience,
    )
    .toBe(true)
  await expect.poll(replies, patience).toBeGreaterThan(1)
  expect(replies()).toBeLessThan(10)
})

test('a reply that would take all memory is refused', async () => {
  const { client } = await serve()
  for (const key of ['a', 'b', 'c', 'd']) await client.put(key, Buffer.alloc(1_250_000))
  const range = message({ 2: message({ 1: message({ 1: '\0', 2: '\0' }) }) })
  const ranges = (count: number): Buffer => Buffer.concat(Array.from({ length: count }, () => range))
  await expect(client.call('KV/Txn', ranges(128))).rejects.toThrow(
    '8 RESOURCE_EXHAUSTED: grpc: trying to send message larger than max (640',
  )
  expect(await client.get('a')).toHaveLength(1_250_000)
})

test('leases are bounded, and the end of one makes room', () => {
  const log = { readLeases: () => [], appendLease: () => undefined, appendLeaseEnd: () => undefined }
  const lessor = new Lessor({
    log: log as unknown as Log,
    store: { index: { walk: () => undefined } } as unknown as Store,
    onExpired: () => undefined,
  })
  onTestFinished(() => lessor.stop())
  const granted = Array.from({ length: 300_000 }, () => lessor.grant({ id: 0n, ttlSeconds: 1000 }))
  expect(() => lessor.grant({ id: 0n, ttlSeconds: 1000 })).toThrow('too-many-requests')
  lessor.end(granted[0] as Lease)
  expect(lessor.grant({ id: 0n, ttlSeconds: 1000 }).id).toBeGreaterThan(0n)
})
