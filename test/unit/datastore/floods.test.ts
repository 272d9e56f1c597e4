import { once } from 'node:events'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { flags, frameTypes, settings } from '../../../src/datastore/grpc/http2/protocol.ts'
import type { Call } from '../../../src/datastore/grpc/http2/call.ts'
import { snapshotService } from '../../../src/datastore/grpc/services/snapshot.ts'
import type { Log } from '../../../src/datastore/log/log.ts'
import { type Lease, Lessor } from '../../../src/datastore/mvcc/lessor.ts'
import { arrange } from '../../../src/datastore/mvcc/range.ts'
import { type RangeRequest, sortTargets } from '../../../src/datastore/mvcc/requests.ts'
import type { Store } from '../../../src/datastore/mvcc/store.ts'
import type { Version } from '../../../src/datastore/mvcc/version.ts'
import { EtcdClient } from './etcd-client.ts'
import { attack, frame, framed, framesOf, headerFrames, request, resets, uint32 } from './raw-http2.ts'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

// What V8 counts of a thread for `make coverage` would fill its small heap.
delete process.env['NODE_V8_COVERAGE']

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

const rangeOfAll = (fields: Record<number, number> = {}): Buffer =>
  message({ 2: message({ 1: message({ 1: '\0', 2: '\0', ...fields }) }) })
const times = (count: number, part: Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => part))
const within = (transaction: Buffer): Buffer => message({ 2: message({ 4: transaction }) })
const put = (key: string, fields: Record<number, number | Buffer> = {}): Buffer =>
  message({ 2: message({ 2: message({ 1: key, ...fields }) }) })
const tooMany = '8 RESOURCE_EXHAUSTED: k8s: too many keys for one request: ask in parts'

/** Keys of a datastore whose memory is for few: a transaction may read 320,000 of them, and change 10,000. */
async function serveKeys(
  count: number,
  heapBytes = 20 * 1024 ** 2,
): Promise<{ listening: string; client: EtcdClient }> {
  const path = join(temporaryDirectory(), 'state.db')
  const { listening } = await runDatastore({ path, heapBytes })
  const client = new EtcdClient(listening)
  onTestFinished(() => client.close())
  for (let at = 0; at < count; at += 100) {
    const puts = Array.from({ length: 100 }, (_, place) => put(`k${at + place}`))
    await client.call('KV/Txn', Buffer.concat(puts))
  }
  return { listening, client }
}

test('a transaction that would look at keys without end is refused, and has written nothing', async () => {
  const { client } = await serveKeys(5000)
  const compares = message({ 1: message({ 1: 3, 2: 1, 3: '\0', 64: '\0' }) })
  const { revision } = await client.count('k')
  const transactions = [
    within(times(20, rangeOfAll({ 3: 1, 5: 2, 6: 1 }))),
    within(times(20, rangeOfAll({ 10: 1_000_000 }))),
    within(times(20, rangeOfAll({ 9: 1, 4: 2 }))),
    within(times(20, compares)),
  ]
  for (const transaction of transactions) {
    await client.call('KV/Txn', transaction)
    await expect(client.call('KV/Txn', Buffer.concat([put('a'), times(60, transaction)]))).rejects.toThrow(
      tooMany,
    )
  }
  expect(await client.count('k')).toEqual({ count: 5000, revision })
})

test('no revision changes more keys than there is memory to tell of', async () => {
  const { client } = await serveKeys(11_000)
  await expect(client.call('KV/DeleteRange', message({ 1: '\0', 2: '\0' }))).rejects.toThrow(tooMany)
  const deletes = message({ 2: message({ 3: message({ 1: '\0', 2: '\0' }) }) })
  await expect(client.call('KV/Txn', Buffer.concat([put('a'), deletes]))).rejects.toThrow(tooMany)
  expect((await client.count('k')).count).toBe(11_000)
  await client.call('KV/DeleteRange', message({ 1: 'k1', 2: 'k2' }))
  expect((await client.count('k')).count).toBeLessThan(9_000)
  // What is tied to a lease ends in one revision, too.
  await client.call('Lease/LeaseGrant', message({ 1: 1000, 2: 7 }))
  for (let at = 0; at < 10_300; at += 100)
    await client.call(
      'KV/Txn',
      Buffer.concat(Array.from({ length: 100 }, (_, place) => put(`l${at + place}`, { 3: 7 }))),
    )
  await expect(
    client.call(
      'KV/Txn',
      Buffer.concat(Array.from({ length: 100 }, (_, place) => put(`m${place}`, { 3: 7 }))),
    ),
  ).rejects.toThrow(tooMany)
  await client.call('KV/Txn', put('l1', { 3: 7 }))
  await client.call('Lease/LeaseRevoke', message({ 1: 7 }))
  expect((await client.count('l')).count).toBe(0)
})

test('no more keys of the past are read at a time than there is memory for', async () => {
  const { client } = await serveKeys(11_000)
  const { revision } = await client.count('k')
  // What was then is in memory neither now nor as what was replaced last.
  for (let at = 0; at < 22_000; at += 100)
    await client.call(
      'KV/Txn',
      Buffer.concat(Array.from({ length: 100 }, (_, place) => put(`k${(at + place) % 11_000}`))),
    )
  const range = (fields: Record<number, number | string>): Promise<Buffer> =>
    client.call('KV/Range', message({ 1: 'k', 2: 'l', 4: revision, ...fields }))
  await expect(range({})).rejects.toThrow(tooMany)
  expect(fieldsOf(await range({ 3: 1000 })).get(2)).toHaveLength(1000)
  expect(fieldsOf(await range({ 2: 'k2' })).get(2)?.length).toBeGreaterThan(1000)
  const read = (fields: Record<number, number | string>): Buffer =>
    message({ 2: message({ 1: message({ 1: 'k', 2: 'l', 4: revision, ...fields }) }) })
  await client.call('KV/Txn', times(9, read({ 3: 1000 })))
  await expect(client.call('KV/Txn', times(12, read({ 3: 1000 })))).rejects.toThrow(tooMany)
  expect(fieldsOf(await range({ 9: 1 })).get(4)).toEqual([11_000n])
})

test('values that take all memory together are not sorted', () => {
  const found = ['a', 'b'].map((key) => ({ key, valueBytes: 300 * 1024 * 1024 }) as Version)
  const anyRevision = { minModRevision: 0, maxModRevision: 0, minCreateRevision: 0, maxCreateRevision: 0 }
  const request = { ...anyRevision, sortTarget: sortTargets.value, sortOrder: 1, limit: 1 } as RangeRequest
  const valueOf = (): Uint8Array => expect.unreachable()
  expect(() => arrange({ valueOf }, request, { found, count: 2 })).toThrow('too-many-keys')
})

test('ranges that are not read count for all that keeps them', async () => {
  const { listening, client } = await serveKeys(20_000, 256 * 1024 ** 2)
  const { send, received } = await attack(listening)
  await send(
    frame(frameTypes.settings, 0, 0, Buffer.concat([Buffer.of(0, settings.initialWindowSize), uint32(0)])),
  )
  const range = framed(message({ 1: '\0', 2: '\0' }))
  for (let stream = 1; stream < 200; stream += 2) {
    await send(headerFrames(stream, request('/etcdserverpb.KV/Range')))
    await send(frame(frameTypes.data, flags.endStream, stream, range))
  }
  await expect.poll(() => resets(received()).length, patience).toBeGreaterThan(0)
  expect((await client.count('k')).count).toBe(20_000)
})

test('leases are bounded, and the end of one makes room', () => {
  const log = { readLeases: () => [], appendLease: () => undefined, appendLeaseEnd: () => undefined }
  const lessor = new Lessor({
    log: log as unknown as Log,
    store: { index: { visitLeased: () => undefined } } as unknown as Store,
    onExpired: () => undefined,
  })
  onTestFinished(() => lessor.stop())
  const granted = Array.from({ length: 300_000 }, () => lessor.grant({ id: 0n, ttlSeconds: 1000 }))
  expect(() => lessor.grant({ id: 0n, ttlSeconds: 1000 })).toThrow('too-many-requests')
  lessor.end(granted[0] as Lease)
  expect(lessor.grant({ id: 0n, ttlSeconds: 1000 }).id).toBeGreaterThan(0n)
})

test('snapshots that nobody takes are few, and the end of one makes room', async () => {
  const make = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('gone'))))
  const [[, method] = []] = snapshotService({ make })
  const take = (): Call => {
    const call = { isOpen: true } as Call
    if (method?.kind === 'unary') method.handle(Buffer.alloc(0), call)
    return call
  }
  const calls = Array.from({ length: 4 }, take)
  expect(take).toThrow('4 snapshots are being taken; more are not taken at a time')
  Object.assign(calls[0] as Call, { isOpen: false }).onCancel?.()
  await expect.poll(take, patience).toBeDefined()
  expect(take).toThrow('more are not taken')
})
