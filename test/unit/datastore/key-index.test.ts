import { expect, test } from 'vitest'
import { KeyIndex } from '../../../src/datastore/mvcc/key-index.ts'
import { contains, everyKeyEnd } from '../../../src/datastore/mvcc/key-range.ts'
import { Version } from '../../../src/datastore/mvcc/version.ts'

let seq = 0

function versionOf(key: string, isTombstone = false): Version {
  seq++
  return new Version({
    key,
    seq,
    revision: seq,
    createRevision: seq,
    version: isTombstone ? 0 : 1,
    lease: 0n,
    valueBytes: 0,
    previous: undefined,
    value: undefined,
  })
}

/** A sequence that is the same in every run. */
function* numbers(seed: number): Generator<number> {
  let state = seed
  for (;;) {
    state = (state * 1103515245 + 12345) % 2 ** 31
    yield state
  }
}

test('agrees with a sorted map through inserts, replacements and removals', () => {
  const index = new KeyIndex()
  const model = new Map<string, Version>()
  const random = numbers(7)
  const next = (limit: number): number => (random.next().value as number) % limit
  for (let step = 0; step < 20_000; step++) {
    const key = `/registry/${next(5)}/${next(3000)}`
    if (next(4) === 0) {
      index.remove(key)
      model.delete(key)
    } else {
      const version = versionOf(key, next(3) === 0)
      expect(index.set(version)).toBe(model.get(key))
      model.set(key, version)
    }
  }
  const sorted = [...model.values()].sort((one, other) => (one.key < other.key ? -1 : 1))
  const walked: Version[] = []
  index.walk({ key: '', end: everyKeyEnd }, (version) => walked.push(version) > 0)
  expect(walked).toEqual(sorted)
  expect(index.size).toBe(model.size)
  for (let round = 0; round < 200; round++) {
    const range = { key: `/registry/${next(5)}/${next(3000)}`, end: `/registry/${next(5)}/${next(3000)}` }
    const live = sorted.filter((version) => contains(range, version.key) && !version.isTombstone)
    expect(index.countLive(range)).toBe(live.length)
  }
})

test('appends are as sets, in any order', () => {
  const appended = new KeyIndex()
  const set = new KeyIndex()
  const keys = Array.from({ length: 3000 }, (_, place) => String(place).padStart(5, '0'))
  for (const key of [...keys, '00000', '02999', '01000~', '99999']) {
    const version = versionOf(key, key.endsWith('7'))
    appended.append(version)
    set.set(version)
  }
  for (const index of [appended, set]) index.remove('00500')
  const all = (index: KeyIndex): Version[] => {
    const walked: Version[] = []
    index.walk({ key: '', end: everyKeyEnd }, (version) => walked.push(version) > 0)
    return walked
  }
  expect(all(appended)).toEqual(all(set))
  const range = { key: '00100', end: '02000' }
  expect(appended.countLive(range)).toBe(set.countLive(range))
  expect([appended.size, appended.bytes]).toEqual([set.size, set.bytes])
})

test('a walk stops where its visitor or its range ends', () => {
  const index = new KeyIndex()
  for (const key of ['a', 'b', 'b\0', 'c', '\xff']) index.set(versionOf(key))
  const walk = (key: string, end: string, limit = 10): string[] => {
    const keys: string[] = []
    index.walk({ key, end }, (version) => keys.push(version.key) < limit)
    return keys
  }
  expect(walk('b', '')).toEqual(['b'])
  expect(walk('b', 'c')).toEqual(['b', 'b\0'])
  expect(walk('b', everyKeyEnd)).toEqual(['b', 'b\0', 'c', '\xff'])
  expect(walk('', everyKeyEnd, 2)).toEqual(['a', 'b'])
  expect(walk('c', 'a')).toEqual([])
  expect(index.countLive({ key: 'c', end: 'a' })).toBe(0)
})
