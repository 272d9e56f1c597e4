import { join } from 'node:path'
import { expect, test } from 'vitest'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

const rounds = 20
const inFlight = 39

/** TxnRequest that reads a key at a revision, and puts another. */
function readAndPut(key: string, revision: number): Buffer {
  const range = message({ 1: message({ 1: key, 4: revision }) })
  const put = message({ 2: message({ 1: `written-${key}`, 2: 'x' }) })
  return Buffer.concat([message({ 2: range }), message({ 2: put })])
}

/** What the first operation of a transaction has read. */
function valueRead(reply: Buffer): string {
  const [operation] = fieldsOf(reply).get(3) as Buffer[]
  const range = fieldsOf(operation as Buffer).get(1)?.[0] as Buffer
  return String(fieldsOf(fieldsOf(range).get(2)?.[0] as Buffer).get(5)?.[0])
}

function revisionOf(reply: Buffer): number {
  return Number(fieldsOf(fieldsOf(reply).get(1)?.[0] as Buffer).get(3)?.[0])
}

test('what a transaction has read of the past is told, though a compaction beside it removes that', async () => {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'db/state.db') })
  const client = new RawClient(datastore.listening)
  const keys = Array.from({ length: inFlight }, (_, at) => `k${at}`)
  const putAll = async (text: string): Promise<number> => {
    const replies = await Promise.all(
      keys.map((key) =>
        client.unary('/etcdserverpb.KV/Put', message({ 1: key, 2: `${text} of ${key} `.repeat(100) })),
      ),
    )
    return Math.max(...replies.map(revisionOf))
  }
  for (let round = 0; round < rounds; round++) {
    const old = await putAll(`old ${round}`)
    const newest = await putAll(`new ${round}`)
    const reads = Promise.all(
      keys.map((key) => client.unary('/etcdserverpb.KV/Txn', readAndPut(key, old)).then(valueRead, String)),
    )
    await client.unary('/etcdserverpb.KV/Compact', message({ 1: newest }))
    expect(await reads).toEqual(keys.map((key) => `old ${round} of ${key} `.repeat(100)))
  }
})
