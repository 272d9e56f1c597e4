import { describe, expect, test } from 'vitest'
import { ValueCache } from '../../../src/datastore/mvcc/value-cache.ts'
import { Version } from '../../../src/datastore/mvcc/version.ts'

const segmentBytes = 256 * 1024
const valueBytes = 32 * 1024
const valuesInSegment = segmentBytes / valueBytes

describe('the cache of values', () => {
  test('keeps what was written last', () => {
    const cache = new ValueCache(() => 2.5 * segmentBytes)
    const versions = write(cache, 4 * valuesInSegment)
    const kept = versions.map((version) => cache.get(version) !== undefined)
    expect(kept).toEqual(versions.map((_, place) => place >= 2 * valuesInSegment))
    for (const version of versions.slice(2 * valuesInSegment)) expectValue(cache, version)
  })

  test('never drops what is not on disk', () => {
    const cache = new ValueCache(() => segmentBytes)
    const versions = write(cache, 4 * valuesInSegment, { committedRevision: 0 })
    for (const version of versions) expectValue(cache, version)
    const later = version(versions.length)
    cache.add(later, bytesOf(later), versions.length)
    expect(cache.get(versions[0] as Version)).toBeUndefined()
    expectValue(cache, later)
  })

  test('uses memory again', () => {
    const cache = new ValueCache(() => 1.5 * segmentBytes)
    const memories = new Set(write(cache, 20 * valuesInSegment).map(({ buffer }) => buffer))
    expect(memories.size).toBeLessThanOrEqual(3)
  })

  test('has room for what is read when everything in a segment was dropped', () => {
    const cache = new ValueCache(() => 2.5 * segmentBytes)
    const versions = write(cache, 2 * valuesInSegment)
    const read = version(1000)
    cache.offer(read, bytesOf(read))
    expect(cache.get(read)).toBeUndefined()
    for (const dropped of versions.slice(0, valuesInSegment)) cache.drop(dropped)
    cache.offer(read, bytesOf(read))
    expectValue(cache, read)
    for (const kept of versions.slice(valuesInSegment)) expectValue(cache, kept)
  })

  test('keeps large values, and nothing of empty ones', () => {
    const cache = new ValueCache(() => 4.5 * segmentBytes)
    const large = version(1)
    cache.add(large, Buffer.alloc(3 * segmentBytes, 7), 1)
    const empty = version(2)
    cache.add(empty, new Uint8Array(0), 2)
    write(cache, valuesInSegment, { from: 3 })
    expect(cache.get(large)?.length).toBe(3 * segmentBytes)
    expect(cache.get(empty)).toBeUndefined()
    write(cache, 2 * valuesInSegment, { from: 100 })
    expect(cache.get(large)).toBeUndefined()
  })

  test('forgets everything', () => {
    const cache = new ValueCache(() => 4 * segmentBytes)
    const versions = write(cache, valuesInSegment)
    cache.clear()
    for (const version of versions) expect(cache.get(version)).toBeUndefined()
    for (const again of write(cache, valuesInSegment)) expectValue(cache, again)
  })
})

interface Written extends Version {
  readonly buffer: ArrayBufferLike
}

/** Writes one version after the other; each is on disk when the next is written unless it is said otherwise. */
function write(
  cache: ValueCache,
  count: number,
  { from = 1, committedRevision }: { from?: number; committedRevision?: number } = {},
): Written[] {
  return Array.from({ length: count }, (_, place) => {
    const written = version(from + place)
    cache.add(written, bytesOf(written), committedRevision ?? written.revision)
    return Object.assign(written, { buffer: (cache.get(written) as Uint8Array).buffer })
  })
}

function version(revision: number): Version {
  const fields = { key: 'a', seq: revision, revision, createRevision: 1, version: 1, lease: 0n, valueBytes }
  return new Version({ ...fields, previous: undefined })
}

function bytesOf({ revision }: Version): Buffer {
  return Buffer.alloc(valueBytes, `revision ${revision} `)
}

function expectValue(cache: ValueCache, written: Version): void {
  const value = cache.get(written)
  expect(value === undefined ? -1 : Buffer.compare(value, bytesOf(written))).toBe(0)
}
