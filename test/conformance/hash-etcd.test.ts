import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { RawClient, fieldsOf, message, runDatastore } from '../unit/datastore/support.ts'
import { runEtcd, temporaryDirectory } from './etcd-peer.ts'

/** The same numbers in every run. */
function* numbers(): Generator<number, never> {
  for (let state = 12_345; ; ) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    yield state >>> 8
  }
}

/** A change of a few of forty keys: puts, a transaction, deletes of one key and of ranges. */
function change(random: () => number): [method: string, request: Buffer] {
  const key = () => `key-${String(random() % 40).padStart(2, '0')}`
  const put = (name: string) =>
    message({
      1: name,
      2: 'x'.repeat(random() % 300),
      ...(random() % 4 === 0 && { 3: 1000 + (random() % 5) }),
    })
  switch (random() % 8) {
    case 0:
      return ['KV/DeleteRange', message({ 1: key() })]
    case 1: {
      const from = key()
      return ['KV/DeleteRange', message({ 1: from, 2: `${from.slice(0, -1)}:` })]
    }
    case 2: {
      // A transaction that puts two keys and deletes a range of others.
      const puts = ['t-one', 't-two'].map((name) => message({ 2: put(name) }))
      const deletion = message({ 3: message({ 1: 'key-0', 2: 'key-1' }) })
      return ['KV/Txn', Buffer.concat([...puts, deletion].map((operation) => message({ 2: operation })))]
    }
    default:
      return ['KV/Put', put(key())]
  }
}

interface Hash {
  readonly hash: bigint | undefined
  readonly compacted: bigint | undefined
  readonly revision: bigint | undefined
}

async function hashAt(client: RawClient, revision: number): Promise<Hash | string> {
  try {
    const fields = fieldsOf(await client.unary('/etcdserverpb.Maintenance/HashKV', message({ 1: revision })))
    const number = (field: number) => fields.get(field)?.[0] as bigint | undefined
    return { hash: number(2), compacted: number(3), revision: number(4) }
  } catch (error) {
    return (error as Error).message
  }
}

test('HashKV is that of etcd for the same history, at every revision, compacted or not', async () => {
  const directory = temporaryDirectory()
  const [etcd, ours] = await Promise.all([
    runEtcd(join(directory, 'etcd')),
    runDatastore({ path: join(directory, 'state.db') }),
  ])
  const clients = [new RawClient(etcd.endpoint), new RawClient(ours.listening)]
  const both = async (method: string, request: Buffer): Promise<void> => {
    for (const client of clients) await client.unary(`/etcdserverpb.${method}`, request)
  }
  const source = numbers()
  const random = () => source.next().value
  let revision = 1
  let compacted = 0
  const compare = async (from: number): Promise<void> => {
    const [theirs, our] = [await hashAt(clients[0] as RawClient, 0), await hashAt(clients[1] as RawClient, 0)]
    expect(our).toEqual(theirs)
    revision = Number((theirs as Hash).revision)
    for (let at = from; at <= revision + 1; at++) {
      const hashes = await Promise.all(clients.map((client) => hashAt(client, at)))
      expect(hashes[1], `at revision ${at}`).toEqual(hashes[0])
    }
  }

  for (let id = 1000; id < 1005; id++) await both('Lease/LeaseGrant', message({ 1: 600, 2: id }))
  await compare(0)
  for (let round = 0; round < 4; round++) {
    for (let count = 0; count < 60; count++) await both(...change(random))
    await both('Lease/LeaseRevoke', message({ 1: 1000 + round }))
    await both('Lease/LeaseGrant', message({ 1: 600, 2: 1000 + round }))
    // At a compacted revision itself etcd answers from a cache: the hash of what was there before.
    await compare(compacted + 1)
    compacted = revision - 20
    await both('KV/Compact', message({ 1: compacted, 2: 1 }))
    await compare(compacted + 1)
    expect(await hashAt(clients[1] as RawClient, compacted - 1)).toEqual(
      await hashAt(clients[0] as RawClient, compacted - 1),
    )
  }

  // Nothing is left but what compaction keeps.
  await both('KV/DeleteRange', message({ 1: Buffer.of(0), 2: Buffer.of(0) }))
  await compare(revision)
  await both('KV/Compact', message({ 1: revision, 2: 1 }))
  await both('KV/Put', message({ 1: 'z', 2: 'again' }))
  await compare(revision + 1)
})

test('a hash of many keys holds other requests up for a few milliseconds', async () => {
  const ours = await runDatastore({ path: join(temporaryDirectory(), 'state.db') })
  const client = new RawClient(ours.listening)
  const value = Buffer.alloc(1500, 'v')
  for (let key = 0; key < 20_000; key += 500) {
    await Promise.all(
      Array.from({ length: 500 }, (_, place) =>
        client.unary('/etcdserverpb.KV/Put', message({ 1: `key-${key + place}`, 2: value })),
      ),
    )
  }
  let isDone = false
  const hashed = hashAt(client, 0).finally(() => (isDone = true))
  let gets = 0
  while (!isDone) {
    await client.unary('/etcdserverpb.KV/Range', message({ 1: 'key-1' }))
    gets++
    await sleep(1)
  }
  expect(await hashed).toMatchObject({ revision: 20_001n })
  // Were it not cut into slices, one request at most would be served meanwhile.
  expect(gets).toBeGreaterThan(5)
})
