import { join } from 'node:path'
import { expect, test } from 'vitest'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

const keyCount = 3000
const valueBytes = 4000

test('a streamed range comes in chunks that grow to the request limit, with the count in the last', async () => {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'db/state.db') })
  const client = new RawClient(datastore.listening)
  const value = Buffer.alloc(valueBytes, 'v')
  const keys = Array.from({ length: keyCount }, (_, at) => `k${String(at).padStart(6, '0')}`)
  await Promise.all(keys.map((key) => client.unary('/etcdserverpb.KV/Put', message({ 1: key, 2: value }))))

  const chunks = await client.collect('/etcdserverpb.KV/RangeStream', message({ 1: 'k', 2: 'l' }))
  const responses = chunks.map((chunk) => fieldsOf((fieldsOf(chunk).get(1) as Buffer[])[0] as Buffer))
  const sizes = responses.map((response) => response.get(2)?.length ?? 0)
  expect(sizes.slice(0, 6)).toEqual([10, 20, 40, 80, 160, 320])
  // 320 keys of 4 kB are more than half of the 1.5 MiB that a chunk aims at.
  expect(new Set(sizes.slice(5, -1))).toEqual(new Set([320]))
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(keyCount)
  for (const [at, response] of responses.entries()) {
    const isLast = at === responses.length - 1
    expect(response.has(1)).toBe(isLast)
    expect(response.get(4)).toEqual(isLast ? [BigInt(keyCount)] : undefined)
  }

  const limited = await client.collect('/etcdserverpb.KV/RangeStream', message({ 1: 'k', 2: 'l', 3: 25 }))
  const last = fieldsOf((fieldsOf(limited.at(-1) as Buffer).get(1) as Buffer[])[0] as Buffer)
  expect(limited.length).toBe(2)
  expect([last.get(3), last.get(4)]).toEqual([[1n], [BigInt(keyCount)]])
})
