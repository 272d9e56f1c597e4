import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { History } from '../../../src/datastore/mvcc/history.ts'
import type { Store } from '../../../src/datastore/mvcc/store.ts'
import { Version } from '../../../src/datastore/mvcc/version.ts'
import { WatchHub, type WatchSink } from '../../../src/datastore/mvcc/watch-hub.ts'

const revisions = 5000
const watchers = 300

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

/** A store with a history of one key. */
function storeWithHistory(): Store {
  const history = new History()
  for (let revision = 2; revision <= revisions; revision++) {
    history.push(
      new Version({
        ...{ key: 'a', seq: revision, revision, createRevision: 2, version: revision - 1, lease: 0n },
        ...{ valueBytes: 0, previous: undefined },
      }),
    )
  }
  return { revision: revisions, compactedRevision: -1, history } as unknown as Store
}

test('others have their turn while many watchers catch up, and each watcher has its own', async () => {
  const hub = new WatchHub(storeWithHistory())
  const seen = new Map<bigint, number[]>()
  const sink: WatchSink = {
    isFull: false,
    events: ({ request }, versions) => {
      seen.set(request.id, [...(seen.get(request.id) ?? []), ...versions.map(({ revision }) => revision)])
      // What it takes to send them.
      vi.advanceTimersByTime(1)
      return versions.length
    },
    compacted: () => expect.unreachable(),
    failed: () => expect.unreachable(),
  }
  for (let id = 0n; id < watchers; id++) {
    hub.add({ key: 'a', end: '', startRevision: 1, ignoresPuts: false, ignoresDeletes: false, id }, sink)
  }
  let longestMs = 0
  let turns = 0
  for (; hub.watchers.behind > 0; turns++) {
    const startMs = performance.now()
    await turn()
    longestMs = Math.max(longestMs, performance.now() - startMs)
    // No one gets ahead of the others by more than a step.
    const counts = [...seen.values()].map((all) => all.length)
    if (seen.size === watchers) expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2000)
  }
  expect(longestMs).toBeLessThanOrEqual(8)
  expect(turns).toBeGreaterThan(watchers / 8)
  const whole = Array.from({ length: revisions - 1 }, (_, at) => at + 2)
  expect([...seen.values()].every((all) => all.join() === whole.join())).toBe(true)
})

test('others have their turn while many watchers are told what was just written', async () => {
  const store = storeWithHistory() as { revision: number; history: History } & Store
  const hub = new WatchHub(store)
  const seen: bigint[] = []
  const sink: WatchSink = {
    isFull: false,
    events: ({ request }, versions) => {
      seen.push(request.id)
      vi.advanceTimersByTime(1)
      return versions.length
    },
    compacted: () => expect.unreachable(),
    failed: () => expect.unreachable(),
  }
  for (let id = 0n; id < watchers; id++) {
    hub.add({ key: 'a', end: '', startRevision: 0, ignoresPuts: false, ignoresDeletes: false, id }, sink)
  }
  const written = new Version({
    ...{ key: 'a', seq: 5001, revision: 5001, createRevision: 2, version: 5000, lease: 0n },
    ...{ valueBytes: 0, previous: undefined },
  })
  store.history.push(written)
  store.revision = written.revision
  const startMs = performance.now()
  hub.publish([written], written.revision)
  let longestMs = performance.now() - startMs
  expect(longestMs).toBeGreaterThan(0)
  while (hub.watchers.behind > 0) {
    const turnMs = performance.now()
    await turn()
    longestMs = Math.max(longestMs, performance.now() - turnMs)
  }
  expect(longestMs).toBeLessThanOrEqual(30)
  expect(seen.toSorted((one, other) => Number(one - other))).toEqual(
    Array.from({ length: watchers }, (_, id) => BigInt(id)),
  )
})

test('each watcher is told of what it wants alone, at once or when its client reads again', async () => {
  const store = storeWithHistory() as { revision: number; history: History } & Store
  const hub = new WatchHub(store)
  const seen = new Map<bigint, number[]>()
  const sinkOf = (isFull: boolean): WatchSink & { isFull: boolean } => ({
    isFull,
    events: ({ request }, versions) => {
      seen.set(request.id, [...(seen.get(request.id) ?? []), ...versions.map(({ revision }) => revision)])
      return versions.length
    },
    compacted: () => expect.unreachable(),
    failed: () => expect.unreachable(),
  })
  const wishes = { key: 'a', end: 'b', startRevision: 0, ignoresPuts: false, ignoresDeletes: false, id: 0n }
  const full = sinkOf(true)
  hub.add({ ...wishes, id: 1n }, sinkOf(false))
  hub.add({ ...wishes, id: 2n, ignoresPuts: true }, sinkOf(false))
  hub.add({ ...wishes, id: 3n, ignoresDeletes: true }, sinkOf(false))
  hub.add({ ...wishes, id: 4n, startRevision: 5002 }, sinkOf(false))
  hub.add({ ...wishes, id: 5n, startRevision: 5003 }, sinkOf(false))
  const behind = hub.add({ ...wishes, id: 6n, ignoresPuts: true }, full)
  hub.add({ ...wishes, id: 7n, key: 'c', end: 'd' }, sinkOf(false))
  const written = [5001, 5002].map(
    (revision) =>
      new Version({
        ...{ key: 'a', seq: revision, revision, createRevision: 2, version: revision === 5001 ? 5000 : 0 },
        ...{ lease: 0n, valueBytes: 0, previous: undefined },
      }),
  )
  for (const version of written) store.history.push(version)
  store.revision = 5002
  hub.publish(written, 5002)
  const atOnce = { 1: [5001, 5002], 2: [5002], 3: [5001], 4: [5002] }
  const told = (): Record<string, number[]> =>
    Object.fromEntries([...seen].map(([id, revisions]) => [String(id), revisions]))
  expect(told()).toEqual(atOnce)
  full.isFull = false
  hub.resume(behind)
  while (hub.watchers.behind > 0) await turn()
  expect(told()).toEqual({ ...atOnce, 6: [5002] })
})
