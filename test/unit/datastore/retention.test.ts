import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { inspectDatabase } from '../../../src/datastore/log/inspect.ts'
import { Retention } from '../../../src/datastore/mvcc/retention.ts'
import { EtcdClient } from './etcd-client.ts'
import { runDatastore, temporaryDirectory } from './support.ts'

const limits = { versions: 1000, bytes: 1_000_000 }

/**
 * A retention of a minute on a clock of its own, over a store that writes a revision each second. `notes` are those of
 * another one before.
 */
function onClock(notes = new Map<string, string>(), store = { revision: 1, compactedRevision: -1, seq: 0 }) {
  const clock = { nowMs: 1000, wallMs: 1_700_000_000_000 }
  const compacted: number[] = []
  const engine = {
    ...{ store, appendedBytes: 0 },
    compact(revision: number) {
      compacted.push(revision)
      store.compactedRevision = revision
    },
  }
  const start = () =>
    new Retention({
      ...{ engine, limits, periodMs: 60_000, now: () => clock.nowMs, wallNow: () => clock.wallMs },
      file: { read: () => notes.get('notes'), write: (text) => void notes.set('notes', text) },
    })
  let retention = start()
  let seconds = 0
  const pass = (count: number): void => {
    for (let second = 0; second < count; second++) {
      store.revision++
      store.seq++
      clock.nowMs += 1000
      clock.wallMs += 1000
      if (++seconds % 6 === 0) retention.note()
    }
  }
  const restart = (awayMs: number): void => {
    clock.nowMs = 5
    clock.wallMs += awayMs
    engine.appendedBytes = 0
    retention = start()
    retention.note()
  }
  retention.note()
  return { pass, compacted, store, engine, restart, published: () => retention.note() }
}

test('what is older than the retention is compacted, in tenths of it', () => {
  const { pass, compacted } = onClock()
  pass(60)
  expect(compacted).toEqual([])
  pass(6)
  expect(compacted).toEqual([7])
  pass(12)
  expect(compacted).toEqual([7, 13, 19])
})

test('where somebody compacts what is newer, nothing is left to do', () => {
  const { pass, compacted, store } = onClock()
  for (let minutes = 0; minutes < 10; minutes++) {
    pass(30)
    store.compactedRevision = store.revision - 20
  }
  expect(compacted).toEqual([])
})

test('a time without writes compacts nothing twice', () => {
  const { pass, compacted, store } = onClock()
  pass(30)
  const { revision } = store
  for (let minutes = 0; minutes < 300; minutes++) {
    pass(1)
    store.revision = revision
  }
  expect(compacted.filter((at) => at === revision)).toHaveLength(1)
})

test('a restart begins nothing anew, and a downtime counts', () => {
  const { pass, compacted, restart } = onClock()
  for (let count = 0; count < 5; count++) {
    pass(18)
    restart(0)
  }
  expect(compacted.length).toBeGreaterThan(3)
  const newest = compacted.at(-1) as number
  restart(120_000)
  expect(compacted.at(-1)).toBeGreaterThan(newest)
})

test('a clock that went back keeps no history for ever', () => {
  const { pass, compacted, restart } = onClock()
  pass(30)
  restart(-1_000_000)
  pass(66)
  expect(compacted.length).toBeGreaterThan(0)
})

test('too many versions, or too many bytes of them, go before their time', () => {
  const { compacted, store, engine, published } = onClock()
  for (let count = 0; count < 30; count++) {
    store.revision += 1
    store.seq += 101
    published()
  }
  expect(compacted.length).toBeGreaterThan(10)
  expect(store.revision - store.compactedRevision).toBeLessThanOrEqual(11)
  const before = compacted.length
  for (let count = 0; count < 30; count++) {
    store.revision += 1
    engine.appendedBytes += 101_000
    published()
  }
  expect(compacted.length).toBeGreaterThan(before + 10)
  expect(store.revision - store.compactedRevision).toBeLessThanOrEqual(11)
})

test('a datastore that nobody compacts keeps the history of its retention', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const datastore = await runDatastore({ path, retentionMs: 1000 })
  const client = new EtcdClient(datastore.listening)
  onTestFinished(() => client.close())
  for (let count = 0; count < 100; count++) await client.put('key', Buffer.from(String(count)))
  await expect.poll(() => inspectDatabase({ path }).versions, { timeout: 20_000 }).toBe(1)
  expect(await client.get('key')).toEqual(Buffer.from('99'))
})
