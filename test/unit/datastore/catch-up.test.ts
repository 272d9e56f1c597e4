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
        ...{ valueBytes: 0, previous: undefined, value: undefined },
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
    ...{ valueBytes: 0, previous: undefined, value: undefined },
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
