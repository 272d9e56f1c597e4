import { expect, test } from 'vitest'
import { type PackedVersion, numbersOfOne } from '../../../src/datastore/mvcc/key-block.ts'
import { KeyIndex } from '../../../src/datastore/mvcc/key-index.ts'
import { contains, everyKeyEnd } from '../../../src/datastore/mvcc/key-range.ts'
import { Version } from '../../../src/datastore/mvcc/version.ts'

let seq = 0

function versionOf(key: string, isTombstone = false): Version {
  seq++
  return new Version({
    key,
    seq,
    revision: seq + 2 ** 40,
    createRevision: seq,
    version: isTombstone ? 0 : 1 + (seq % 7),
    lease: !isTombstone && seq % 5 === 0 ? 2n ** 62n + BigInt(seq) : 0n,
    valueBytes: seq % 1000,
    previous: undefined,
  })
}

/** As it is read of the log. */
function packed({ key, lease, ...version }: Version): PackedVersion {
  const numbers = new Float64Array(2 * numbersOfOne)
  const { revision, createRevision, valueBytes } = version
  numbers.set([version.seq, revision, createRevision, version.version, valueBytes], numbersOfOne)
  const memory = Buffer.from(`before ${key} after`, 'latin1')
  const start = 'before '.length
  return { key: { memory, start, end: start + key.length }, numbers, at: numbersOfOne, lease }
}

/** A sequence that is the same in every run. */
function* numbers(seed: number): Generator<number> {
  let state = seed
  for (;;) {
    state = (state * 1103515245 + 12345) % 2 ** 31
    yield state
  }
}

function walked(index: KeyIndex): Version[] {
  const versions: Version[] = []
  index.walk({ key: '', end: everyKeyEnd }, (version) => versions.push(version) > 0)
  return versions
}

function leased(index: KeyIndex): Version[] {
  const versions: Version[] = []
  index.visitLeased((version) => versions.push(version))
  return versions
}

test('agrees with a sorted map through inserts, replacements, removals, and what is kept as numbers', () => {
  const index = new KeyIndex()
  const model = new Map<string, Version>()
  const random = numbers(7)
  const next = (limit: number): number => (random.next().value as number) % limit
  for (let step = 0; step < 20_000; step++) {
    const key = `/registry/${next(5)}/${next(3000)}`
    const known = model.get(key)
    const action = next(6)
    if (action === 0) {
      index.remove(key)
      model.delete(key)
    } else if (action < 3 && known !== undefined) {
      index.pack(known)
      // Once more, and of what is not the newest: neither does anything.
      index.pack(known)
      index.pack(versionOf(key))
    } else {
      const version = versionOf(key, next(3) === 0)
      expect(index.set(version)).toEqual(known)
      expect(index.get(key)).toBe(version)
      model.set(key, version)
    }
    expect(index.get(key)).toEqual(model.get(key))
  }
  const sorted = [...model.values()].sort((one, other) => (one.key < other.key ? -1 : 1))
  expect(walked(index)).toEqual(sorted)
  expect(leased(index)).toEqual(sorted.filter(({ lease }) => lease !== 0n))
  expect(index.size).toBe(model.size)
  for (let round = 0; round < 200; round++) {
    const range = { key: `/registry/${next(5)}/${next(3000)}`, end: `/registry/${next(5)}/${next(3000)}` }
    const found = sorted.filter((version) => contains(range, version.key))
    const live = found.filter((version) => !version.isTombstone)
    expect(index.countLive(range)).toBe(live.length)
    expect(index.countAll(range)).toBe(found.length)
    const inRange: Version[] = []
    index.walk(range, (version) => inRange.push(version) > 0)
    expect(inRange).toEqual(found)
  }
  for (const key of model.keys()) index.remove(key)
  expect([index.size, index.bytes, walked(index)]).toEqual([0, 0, []])
})

test('appends are as sets, in any order', () => {
  const appended = new KeyIndex()
  const set = new KeyIndex()
  const keys = Array.from({ length: 3000 }, (_, place) => String(place).padStart(5, '0'))
  for (const key of [...keys, '00000', '02999', '01000~', '99999', '99999\0', '99999\xff']) {
    const version = versionOf(key)
    appended.append(packed(version))
    set.set(version)
  }
  for (const index of [appended, set]) index.remove('00500')
  expect(walked(appended)).toEqual(walked(set))
  expect(leased(appended)).toEqual(leased(set))
  const range = { key: '00100', end: '02000' }
  expect(appended.countLive(range)).toBe(set.countLive(range))
  expect([appended.size, appended.bytes]).toEqual([set.size, set.bytes])
})

test('keys of any bytes are in their order, also those that others begin with, and very long ones', () => {
  const index = new KeyIndex()
  const long = 'long/'.repeat(20_000)
  const keys = ['', '\0', '\0\0', 'a', 'a\0', 'a\xff', 'ab', 'b', '\x7f', '\x80', '\xff', '\xff\xff']
  for (let place = 0; place < 40; place++) keys.push(`${long}${String(place % 7)}/${place}`, `${place}~`)
  for (const key of keys.toReversed()) index.set(versionOf(key))
  const sorted = keys.toSorted((one, other) => (one < other ? -1 : 1))
  expect(walked(index).map(({ key }) => key)).toEqual(sorted)
  for (const key of keys) {
    index.pack(index.get(key) as Version)
    expect(index.get(key)?.key).toBe(key)
    expect(index.get(`${key}\0\0\0`)).toBeUndefined()
    expect(index.countAll({ key, end: everyKeyEnd })).toBe(keys.length - sorted.indexOf(key))
  }
  expect(walked(index).map(({ key }) => key)).toEqual(sorted)
  const heldBytes = process.memoryUsage().arrayBuffers
  for (const key of keys) if (key.startsWith(long)) index.remove(key)
  expect(heldBytes - process.memoryUsage().arrayBuffers).toBeGreaterThan(20 * long.length)
  expect(walked(index).map(({ key }) => key)).toEqual(sorted.filter((key) => !key.startsWith(long)))
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
