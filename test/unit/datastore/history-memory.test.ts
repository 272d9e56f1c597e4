import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Datastore } from '../../../src/datastore/datastore.ts'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

// What V8 counts of a thread for `make coverage` would fill its small heap.
delete process.env['NODE_V8_COVERAGE']

/** As objects in one heap, so many versions take more than twice as much as there is. */
const heapBytes = 20 * 1024 ** 2
const transactions = 1000
const putsEach = 128
const writers = 32
const keyCount = 3000

const keyOf = (place: number): string => `k${String(place % keyCount).padStart(6, '0')}`
const valueOf = (transaction: number, place: number): string => `${transaction}.${place}`
const limits = { 'grpc.max_receive_message_length': 64 * 1024 * 1024 }

/** What a transaction puts: keys in a row, which the next one goes on with. */
function putsOf(transaction: number): [key: string, value: string][] {
  return Array.from({ length: putsEach }, (_, at) => [
    keyOf(transaction * putsEach + at),
    valueOf(transaction, at),
  ])
}

function putRequest(key: string, value: string): Buffer {
  return message({ 2: message({ 2: message({ 1: key, 2: value }) }) })
}

function revisionOf(reply: Buffer): number {
  return Number(fieldsOf(fieldsOf(reply).get(1)?.[0] as Buffer).get(3)?.[0])
}

function statesOf(range: Buffer): Map<string, string> {
  const kvs = ((fieldsOf(range).get(2) ?? []) as Buffer[]).map(fieldsOf)
  return new Map(kvs.map((kv) => [String(kv.get(1)?.[0]), String(kv.get(5)?.[0])]))
}

/** Writes from many sides; returns which transaction made which revision. */
async function write(client: RawClient): Promise<Map<number, number>> {
  const byRevision = new Map<number, number>()
  let next = 0
  const writer = async (): Promise<void> => {
    for (let transaction = next++; transaction < transactions; transaction = next++) {
      const puts = putsOf(transaction).map(([key, value]) => putRequest(key, value))
      byRevision.set(revisionOf(await client.unary('/etcdserverpb.KV/Txn', Buffer.concat(puts))), transaction)
    }
  }
  await Promise.all(Array.from({ length: writers }, writer))
  return byRevision
}

/** The keys as they were at a revision. */
function expectedAt(byRevision: ReadonlyMap<number, number>, revision: number): Map<string, string> {
  const states = new Map<string, string>()
  for (let at = 2; at <= revision; at++) {
    for (const [key, value] of putsOf(byRevision.get(at) as number)) states.set(key, value)
  }
  return new Map([...states].sort(([one], [other]) => (one < other ? -1 : 1)))
}

async function look(datastore: Datastore, byRevision: ReadonlyMap<number, number>) {
  const client = new RawClient(datastore.listening, limits)
  const range = (fields: Record<number, string | number>) =>
    client.unary('/etcdserverpb.KV/Range', message({ 1: 'k', 2: 'l', ...fields }))
  for (const revision of [60, transactions / 2]) {
    const expected = expectedAt(byRevision, revision)
    expect(statesOf(await range({ 4: revision }))).toEqual(expected)
    const page = fieldsOf(await range({ 4: revision, 3: 100 }))
    expect([page.get(2)?.length, page.get(3), page.get(4)]).toEqual([100, [1n], [BigInt(expected.size)]])
    const chunks = await client.collect(
      '/etcdserverpb.KV/RangeStream',
      message({ 1: 'k', 2: 'l', 4: revision }),
    )
    const parts = chunks.map((chunk) => statesOf(fieldsOf(chunk).get(1)?.[0] as Buffer))
    expect(new Map(parts.flatMap((part) => [...part]))).toEqual(expected)
    const [[key, value] = ['', '']] = expected
    const read = message({ 2: message({ 1: message({ 1: key, 4: revision }) }) })
    const reply = await client.unary('/etcdserverpb.KV/Txn', read)
    const operation = fieldsOf(fieldsOf(reply).get(3)?.[0] as Buffer)
    expect(statesOf(operation.get(1)?.[0] as Buffer)).toEqual(new Map([[key, value]]))
  }
  expect(await eventsOf(client, keyOf(5))).toEqual(expectedEvents(byRevision, keyOf(5)))
  const hash = fieldsOf(
    await client.unary('/etcdserverpb.Maintenance/HashKV', message({ 1: transactions + 1 })),
  )
  return hash.get(2)
}

type Event = [revision: number, value: string, previous: string | undefined]

function expectedEvents(byRevision: ReadonlyMap<number, number>, key: string): Event[] {
  const events: Event[] = []
  for (let revision = 2; revision <= transactions + 1; revision++) {
    const value = new Map(putsOf(byRevision.get(revision) as number)).get(key)
    if (value !== undefined) events.push([revision, value, events.at(-1)?.[1]])
  }
  return events
}

/** All events of a key from the first revision on. */
async function eventsOf(client: RawClient, key: string): Promise<Event[]> {
  const stream = client.stream('/etcdserverpb.Watch/Watch')
  onTestFinished(() => stream.cancel())
  stream.on('error', () => undefined)
  stream.write(message({ 1: message({ 1: key, 3: 1, 6: 1 }) }))
  // Answered only when nothing of the past is missing any more.
  const asking = setInterval(() => stream.write(message({ 3: Buffer.alloc(0) })), 50)
  const events: Event[] = []
  const textOf = (kv: unknown): string => String(fieldsOf(kv as Buffer).get(5)?.[0])
  for await (const response of stream) {
    const fields = fieldsOf(response as Buffer)
    for (const event of (fields.get(11) ?? []) as Buffer[]) {
      const [kv, previous] = [2, 3].map((field) => fieldsOf(event).get(field)?.[0])
      const revision = Number(fieldsOf(kv as Buffer).get(3)?.[0])
      events.push([revision, textOf(kv), previous === undefined ? undefined : textOf(previous)])
    }
    if (fields.get(11) === undefined && fields.get(3) === undefined) break
  }
  clearInterval(asking)
  return events
}

test('a history of more versions than the heap has room for is written, read, watched, and opened again', {
  timeout: 300_000,
}, async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const settings = { path, heapBytes, retentionMs: 0, maxTxnOperations: putsEach }
  const first = await runDatastore(settings)
  const byRevision = await write(new RawClient(first.listening))
  const before = await look(first, byRevision)
  await first.stop()

  const second = await runDatastore(settings)
  expect(await look(second, byRevision)).toEqual(before)
  const client = new RawClient(second.listening)
  await client.unary('/etcdserverpb.KV/Compact', message({ 1: transactions + 1, 2: 1 }))
  const newest = await client.unary('/etcdserverpb.KV/Range', message({ 1: 'k', 2: 'l' }))
  expect(statesOf(newest)).toEqual(expectedAt(byRevision, transactions + 1))
  await second.stop()
})
