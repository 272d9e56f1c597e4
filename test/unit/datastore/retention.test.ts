import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { inspectDatabase } from '../../../src/datastore/log/inspect.ts'
import { Retention } from '../../../src/datastore/mvcc/retention.ts'
import { EtcdClient } from './etcd-client.ts'
import { runDatastore, temporaryDirectory } from './support.ts'

/** A retention of a minute on a clock of its own, over a store that writes a revision each second. */
function onClock() {
  const clock = { nowMs: 0 }
  const compacted: number[] = []
  const store = { revision: 1, compactedRevision: -1 }
  const engine = {
    store,
    compact(revision: number) {
      compacted.push(revision)
      store.compactedRevision = revision
    },
  }
  const retention = new Retention({ engine, periodMs: 60_000, now: () => clock.nowMs })
  const pass = (seconds: number): void => {
    for (let second = 0; second < seconds; second++) {
      store.revision++
      clock.nowMs += 1000
      if (clock.nowMs % 6000 === 0) retention.note()
    }
  }
  retention.note()
  return { pass, compacted, store }
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

test('a datastore that nobody compacts keeps the history of its retention', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const datastore = await runDatastore({ path, retentionMs: 1000 })
  const client = new EtcdClient(datastore.listening)
  onTestFinished(() => client.close())
  for (let count = 0; count < 100; count++) await client.put('key', Buffer.from(String(count)))
  await expect.poll(() => inspectDatabase({ path }).versions, { timeout: 20_000 }).toBe(1)
  expect(await client.get('key')).toEqual(Buffer.from('99'))
})
