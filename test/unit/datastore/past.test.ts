import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, onTestFinished, test } from 'vitest'
import type { AppError } from '../../../src/base/errors.ts'
import type { WorkerData } from '../../../src/datastore/messages.ts'
import { Log } from '../../../src/datastore/log/log.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { Engine } from '../../../src/datastore/mvcc/engine.ts'
import type { RangeRequest, RangeResult } from '../../../src/datastore/mvcc/requests.ts'
import { Store, type StoreLimits } from '../../../src/datastore/mvcc/store.ts'
import type { Version } from '../../../src/datastore/mvcc/version.ts'
import { storeLimits } from '../../../src/datastore/memory.ts'
import { temporaryDirectory, workerUrl } from './support.ts'

const writes = 250
const mebibyte = 1024 ** 2

/** All of the history in memory, a few of its versions, or none. */
const limits = {
  whole: { ...storeLimits(128 * mebibyte), valueBytes: () => 0, historyBytes: 64 * mebibyte },
  part: { ...storeLimits(128 * mebibyte), valueBytes: () => 0, historyBytes: 20_000 },
  none: { ...storeLimits(128 * mebibyte), valueBytes: () => 0, historyBytes: 0 },
} as const satisfies Record<string, StoreLimits>

function openLog(path: string): Log {
  const database = { path, cacheBytes: mebibyte }
  const data: WorkerData = { role: 'log-writer', database }
  return new Log(database, new Worker(workerUrl, { workerData: data }))
}

function open(path: string, kept: StoreLimits, onTrouble?: (error: AppError) => void) {
  const log = openLog(path)
  const fail = (error: Error): never => {
    throw error
  }
  const engine = new Engine({
    log,
    limits: kept,
    quotaBytes: 0,
    onFailure: fail,
    onTrouble: onTrouble ?? fail,
  })
  const close = async (): Promise<void> => {
    engine.stop()
    await log.close()
  }
  return { engine, committed: () => new Promise((resolve) => engine.afterCommit(resolve)), close }
}

/** A sequence that is the same in every run. */
function sequence(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return (state >> 8) % limit
  }
}

/** Puts and deletes of some keys, one revision each; more of them than the history of 'part' has room for. */
async function write({ engine, committed }: ReturnType<typeof open>): Promise<void> {
  const random = sequence(11)
  for (let count = 0; count < writes; count++) {
    const key = `k${random(40)}`
    const end = random(20) === 0 ? `${key}~` : ''
    if (random(4) === 0) engine.deleteRange({ kind: 'delete-range', key, end, previousKv: false })
    else {
      const value = Buffer.from(`${count}`)
      const flags = { previousKv: false, ignoreValue: false, ignoreLease: false }
      engine.put({ kind: 'put', key, value, lease: 0n, ...flags })
    }
    if (count % 50 === 0) await committed()
  }
  await committed()
}

function requestOf(fields: Partial<RangeRequest>): RangeRequest {
  return {
    ...{ kind: 'range', key: 'k', end: 'l', limit: 0, revision: 0, sortOrder: 0, sortTarget: 0 },
    ...{ keysOnly: false, countOnly: false, minModRevision: 0, maxModRevision: 0 },
    ...{ minCreateRevision: 0, maxCreateRevision: 0, needsCount: true },
    ...fields,
  }
}

function read(engine: Engine, request: RangeRequest): Promise<object> {
  const { promise, resolve, reject } = Promise.withResolvers<object>()
  const done = (result: RangeResult): void => resolve({ ...result, versions: result.versions.map(shown) })
  const shown = (version: Version): unknown[] => [
    ...[version.key, version.revision, version.createRevision, version.version, version.lease],
    ...[version.isTombstone, String(engine.store.valueOf(version))],
  ]
  try {
    if (engine.store.isInMemory(request.revision)) done(engine.range(request))
    else engine.past.range(request, { isWanted: () => true, failed: reject, done })
  } catch (thrown) {
    reject(thrown as Error)
  }
  return promise
}

/** Everything that clients can see of the history: ranges of many kinds at every revision, all events from some, hashes. */
async function everything({ engine }: ReturnType<typeof open>): Promise<unknown> {
  const { compactedRevision, revision: newest } = engine.store
  const ranges: unknown[] = []
  for (let revision = Math.max(1, compactedRevision); revision <= newest; revision++) {
    const at = (fields: Partial<RangeRequest>) =>
      read(engine, requestOf({ revision, ...fields })).catch((error: Error) => error.message)
    ranges.push(
      await Promise.all([
        at({}),
        at({ limit: 7 }),
        at({ limit: 7, key: 'k2', needsCount: false }),
        at({ countOnly: true, key: 'k1', end: 'k3' }),
        at({ key: `k${revision % 40}`, end: '' }),
        at({ sortTarget: 3, sortOrder: 2, limit: 5 }),
        at({ maxModRevision: revision - 20, end: '\0' }),
      ]),
    )
  }
  const events: unknown[] = []
  for (const startRevision of [1, 2, Math.floor(newest / 3), newest - 10]) {
    events.push(await eventsFrom(engine, startRevision))
  }
  const hashes: unknown[] = []
  for (const revision of [compactedRevision, Math.floor(newest / 2), newest - 1, 0]) {
    hashes.push(scanned(engine, Math.max(revision, compactedRevision, 0)))
  }
  return { ranges, events, hashes }
}

function eventsFrom(engine: Engine, startRevision: number): Promise<unknown[]> {
  const events: unknown[] = []
  return new Promise((resolve) => {
    const watcher = engine.hub.add(
      { key: 'k', end: 'k3', startRevision, ignoresPuts: false, ignoresDeletes: false, id: 1n },
      {
        isFull: false,
        events: (_watcher, versions) => {
          for (const { key, revision, version, previous } of versions) {
            const before = previous?.isTombstone === false ? previous : undefined
            const value = before && String(engine.store.valueOf(before))
            events.push([key, revision, version, before?.revision, value])
          }
          return versions.length
        },
        compacted: (_watcher, revision) => resolve(['compacted', revision]),
        failed: (_watcher, thrown) => resolve(['failed', String(thrown)]),
      },
    )
    const look = (): void => {
      if (watcher.isBehind) return void setImmediate(look)
      engine.hub.remove(watcher)
      resolve(events)
    }
    setImmediate(look)
  })
}

function scanned(engine: Engine, revision: number): unknown[] {
  const scan = engine.scanForHash(revision)
  const states: unknown[] = []
  const visit = (state: { key: string; revision: number; value: Uint8Array }): void =>
    void states.push([state.key, state.revision, String(state.value)])
  while (scan.slice(visit));
  scan.close()
  return states
}

test('the past is the same whether memory has all of it, a part or nothing, over compactions and restarts', async () => {
  const directory = temporaryDirectory()
  const seen = await Promise.all(
    Object.entries(limits).map(async ([name, kept]) => {
      const path = join(directory, `${name}.db`)
      const stages: unknown[] = []
      let opened = open(path, kept)
      onTestFinished(() => opened.close())
      const look = async (): Promise<void> => void stages.push(await everything(opened))
      await write(opened)
      await look()
      const { engine } = opened
      const compacted = Math.floor(engine.store.revision / 3)
      await new Promise<void>((resolve) => engine.compact(compacted, resolve))
      await look()
      await opened.close()
      opened = open(path, kept)
      await look()
      await write(opened)
      await look()
      await new Promise<void>((resolve) => opened.engine.compact(compacted * 2, resolve))
      await new Promise<void>((resolve) => opened.engine.compact(opened.engine.store.revision, resolve))
      await look()
      expect(checkDatabase({ path })).toEqual([])
      // All is compacted: of the deleted keys nothing is left in memory.
      const { history, index } = opened.engine.store
      expect([history.size, index.size]).toEqual([0, index.countLive({ key: '', end: '\0' })])
      return stages
    }),
  )
  const [whole, part, none] = seen
  expect(part).toEqual(whole)
  expect(none).toEqual(whole)
})

test('no more keys are taken than there is memory for; what is deleted makes room', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const told: string[] = []
  const { engine, committed, close } = open(path, { ...limits.none, keyBytes: 10_000 }, ({ code }) =>
    told.push(code),
  )
  onTestFinished(close)
  const put = (key: string): void => {
    const flags = { previousKv: false, ignoreValue: false, ignoreLease: false }
    engine.put({ kind: 'put', key, value: Buffer.from('x'), lease: 0n, ...flags })
  }
  const putMany = (): void => {
    for (let count = 0; count < 1000; count++) put(`key ${count}`)
  }
  expect(putMany).toThrow('no-space')
  expect(told).toEqual(['DATASTORE_NO_MEMORY'])
  await committed()
  engine.deleteRange({ kind: 'delete-range', key: 'key', end: 'kez', previousKv: false })
  await committed()
  put('key')
  await committed()
  expect(engine.alarm).toBeUndefined()
})

test('a start finds keys of any bytes and lengths as they were, with their leases, whatever is compacted', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  let opened = open(path, limits.none)
  onTestFinished(() => opened.close())
  const names = [
    '\0',
    '\0\0',
    'a',
    'a\0',
    'caf\xe9',
    '\xc3\x28',
    '\xff',
    'n"ame',
    ...['x', 'y'].map((x) => x.repeat(1024)),
  ]
  // Longer than what is read together; more keys than are read at a time.
  const keys = [
    ...names,
    'x'.repeat(1025),
    'x'.repeat(100_000),
    ...Array.from({ length: 2500 }, (_, n) => `many/${n}`),
  ]
  const lease = 2n ** 62n + 1n
  opened.engine.grantLease({ id: lease, ttlSeconds: 1000 })
  for (const [place, key] of [...keys, ...names].entries()) {
    const flags = { previousKv: false, ignoreValue: false, ignoreLease: false }
    const value = Buffer.alloc(place % 7, 'v')
    opened.engine.put({ kind: 'put', key, value, lease: place % 3 === 0 ? lease : 0n, ...flags })
  }
  opened.engine.deleteRange({ kind: 'delete-range', key: 'many/1', end: 'many/2', previousKv: false })
  await opened.committed()
  const look = () => {
    const all: unknown[] = []
    opened.engine.store.index.walk({ key: '', end: '\0' }, (version) => {
      if (version.isTombstone) return true
      const { previous: _previous, ...fields } = version
      return all.push(fields) > 0
    })
    return [all, opened.engine.store.revision, opened.engine.store.seq]
  }
  const written = look()
  for (const compacted of [10, opened.engine.store.revision]) {
    await opened.close()
    opened = open(path, limits.none)
    expect(look()).toEqual(written)
    await new Promise<void>((resolve) => opened.engine.compact(compacted, resolve))
    await opened.committed()
  }
  await opened.close()
  opened = open(path, limits.whole)
  expect(look()).toEqual(written)
})

test('a database with more keys than there is memory for is refused before the process runs out of it', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const opened = open(path, limits.none)
  await write(opened)
  const keys = opened.engine.store.index.size
  await opened.close()
  const log = openLog(path)
  onTestFinished(() => log.close())
  expect(() => new Store(log, { ...limits.none, heapBytes: keys * 200 })).toThrow(/no memory for its keys/)
  expect(new Store(log, { ...limits.none, heapBytes: keys * 210 }).index.size).toBe(keys)
})
