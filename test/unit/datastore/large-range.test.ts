import { once } from 'node:events'
import { connect } from 'node:http2'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { expect, onTestFinished, test } from 'vitest'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

const keyCount = 2000
const lists = 6
const limits = { 'grpc.max_receive_message_length': 64 * 1024 * 1024 }

/** Values of all sizes, some larger than a piece of a message, each of bytes of its own: no text, and with zeros. */
function valueOf(at: number, round: number): Buffer {
  const bytes = at % 500 === 0 ? 600_000 : (at * 37) % 6000
  return Buffer.alloc(bytes, Buffer.of(0xff, 0, at >> 8, at, 0xc3, round, 0x80))
}

const keyOf = (at: number): string => `k${String(at).padStart(6, '0')}`

test('large ranges are whole and of one revision, many at once, beside updates and compactions', async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const datastore = await runDatastore({ path })
  let client = new RawClient(datastore.listening, limits)
  const numbers = Array.from({ length: keyCount }, (_, at) => at)
  const write = async (round: number): Promise<bigint> => {
    const replies = await Promise.all(
      numbers.map((at) =>
        client.unary('/etcdserverpb.KV/Put', message({ 1: keyOf(at), 2: valueOf(at, round) })),
      ),
    )
    return newestOf(replies)
  }
  const list = async (): Promise<number[]> => {
    const reply = await client.unary('/etcdserverpb.KV/Range', message({ 1: 'k', 2: 'l' }))
    const kvs = (fieldsOf(reply).get(2) as Buffer[]).map(fieldsOf)
    expect(fieldsOf(reply).get(4)).toEqual([BigInt(keyCount)])
    expect(kvs.map((kv) => String(kv.get(1)?.[0]))).toEqual(numbers.map(keyOf))
    // Which round wrote each key; a torn value is of none.
    return kvs.map((kv, at) => {
      const value = (kv.get(5)?.[0] as Buffer | undefined) ?? Buffer.alloc(0)
      const round = [1, 2].find((candidate) => value.equals(valueOf(at, candidate)))
      expect(round, `value of ${keyOf(at)}`).toBeDefined()
      return round as number
    })
  }

  const first = await write(1)
  const [rounds, last] = await Promise.all([
    Promise.all(Array.from({ length: lists }, list)),
    (async () => {
      const newest = await write(2)
      await client.unary('/etcdserverpb.KV/Compact', message({ 1: newest, 2: 1 }))
      return newest
    })(),
  ])
  expect(last).toBeGreaterThan(first)
  expect(rounds).toHaveLength(lists)
  const isOfFirst = (round: number, at: number): boolean =>
    round !== 2 && !valueOf(at, 1).equals(valueOf(at, 2))
  expect((await list()).filter(isOfFirst)).toEqual([])

  // What the server has read from the disk, and not written itself.
  await datastore.stop()
  const restarted = await runDatastore({ path })
  client = new RawClient(restarted.listening, limits)
  expect((await list()).filter(isOfFirst)).toEqual([])
})

// More keys than are sent at once, and of a size that fits into one part, exactly into some, or into several.
test.each([1, 100, 900, 1800, 1900, 2000, 5000])('150 keys of %i bytes', async (bytes) => {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'db/state.db') })
  const client = new RawClient(datastore.listening)
  const keys = Array.from({ length: 150 }, (_, at) => keyOf(at))
  await Promise.all(
    keys.map((key) => client.unary('/etcdserverpb.KV/Put', message({ 1: key, 2: Buffer.alloc(bytes, key) }))),
  )
  const reply = fieldsOf(await client.unary('/etcdserverpb.KV/Range', message({ 1: 'k', 2: 'l' })))
  const kvs = (reply.get(2) as Buffer[]).map(fieldsOf)
  expect(kvs.map((kv) => String(kv.get(1)?.[0]))).toEqual(keys)
  expect(kvs.every((kv, at) => Buffer.alloc(bytes, keys[at]).equals(kv.get(5)?.[0] as Buffer))).toBe(true)
  expect(reply.get(4)).toEqual([150n])
})

test('what a slow client has not taken yet stays when it is compacted, until it has it', async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const keys = Array.from({ length: 500 }, (_, at) => keyOf(at))
  const first = await runDatastore({ path })
  await putAll(new RawClient(first.listening), keys, 'old')
  await first.stop()
  // Nothing of it is in memory.
  const datastore = await runDatastore({ path })
  const client = new RawClient(datastore.listening)
  const database = new Database(path, { readonly: true })
  onTestFinished(() => void database.close())
  const versions = database.prepare('SELECT count(*) FROM version').pluck()

  const session = connect(datastore.listening)
  onTestFinished(() => session.destroy())
  const list = session.request({
    ':method': 'POST',
    ':path': '/etcdserverpb.KV/Range',
    'content-type': 'application/grpc',
  })
  const request = message({ 1: 'k', 2: 'l' })
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(request.length, 1)
  list.end(Buffer.concat([prefix, request]))
  await once(list, 'response')

  const newest = await putAll(client, keys, 'new')
  let isCompacted = false
  const compacted = client
    .unary('/etcdserverpb.KV/Compact', message({ 1: newest, 2: 1 }))
    .then(() => (isCompacted = true))
  await client.unary('/etcdserverpb.KV/Put', message({ 1: 'z' }))
  expect(isCompacted).toBe(false)
  expect(versions.get()).toBe(2 * keys.length + 1)

  const chunks: Buffer[] = []
  for await (const chunk of list) chunks.push(chunk as Buffer)
  expect(list.rstCode).toBe(0)
  const kvs = (fieldsOf(Buffer.concat(chunks).subarray(5)).get(2) as Buffer[]).map(fieldsOf)
  expect(kvs.map((kv) => String(kv.get(5)?.[0]))).toEqual(keys.map((key) => textOf(key, 'old')))
  await compacted
  expect(versions.get()).toBe(keys.length + 1)
})

const textOf = (key: string, round: string): string => `${round} of ${key} `.repeat(300)

/** Returns the last revision. */
async function putAll(client: RawClient, keys: readonly string[], round: string): Promise<bigint> {
  const put = (key: string): Promise<Buffer> =>
    client.unary('/etcdserverpb.KV/Put', message({ 1: key, 2: textOf(key, round) }))
  return newestOf(await Promise.all(keys.map(put)))
}

/** The last revision in replies. */
function newestOf(replies: readonly Buffer[]): bigint {
  return replies.map(revisionOf).reduce((newest, revision) => (revision > newest ? revision : newest))
}

function revisionOf(reply: Buffer): bigint {
  return fieldsOf((fieldsOf(reply).get(1) as Buffer[])[0] as Buffer).get(3)?.[0] as bigint
}
