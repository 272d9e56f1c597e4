import { describe, expect, test } from 'vitest'
import { ValueCache } from '../../../src/datastore/mvcc/value-cache.ts'
import { Version } from '../../../src/datastore/mvcc/version.ts'

const segmentBytes = 256 * 1024
const valueBytes = 32 * 1024
const valuesInSegment = segmentBytes / valueBytes

describe('the cache of values', () => {
  test('keeps what was written last', () => {
    const cache = new ValueCache(2.5 * segmentBytes)
    const versions = write(cache, 4 * valuesInSegment)
    const kept = versions.map(({ value }) => value !== undefined)
    expect(kept).toEqual(versions.map((_, place) => place >= 2 * valuesInSegment))
    for (const version of versions.slice(2 * valuesInSegment)) expectValue(version)
  })

  test('never drops what is not on disk', () => {
    const cache = new ValueCache(segmentBytes)
    const versions = write(cache, 4 * valuesInSegment, { committedRevision: 0 })
    for (const version of versions) expectValue(version)
    const later = version(versions.length)
    cache.add(later, bytesOf(later), versions.length)
    expect(versions[0]?.value).toBeUndefined()
    expectValue(later)
  })

  test('uses memory again', () => {
    const cache = new ValueCache(1.5 * segmentBytes)
    const memories = new Set(write(cache, 20 * valuesInSegment).map(({ buffer }) => buffer))
    expect(memories.size).toBeLessThanOrEqual(3)
  })

  test('has room for what is read when everything in a segment was dropped', () => {
    const cache = new ValueCache(2.5 * segmentBytes)
    const versions = write(cache, 2 * valuesInSegment)
    const read = version(1000)
    cache.offer(read, bytesOf(read))
    expect(read.value).toBeUndefined()
    for (const dropped of versions.slice(0, valuesInSegment)) cache.drop(dropped)
    cache.offer(read, bytesOf(read))
    expectValue(read)
    for (const kept of versions.slice(valuesInSegment)) expectValue(kept)
  })

  test('keeps large values, and empty ones beside its limit', () => {
    const cache = new ValueCache(4.5 * segmentBytes)
    const large = version(1)
    cache.add(large, Buffer.alloc(3 * segmentBytes, 7), 1)
    const empty = version(2)
    cache.add(empty, new Uint8Array(0), 2)
    write(cache, valuesInSegment, { from: 3 })
    expect(large.value?.length).toBe(3 * segmentBytes)
    expect(empty.value?.length).toBe(0)
    write(cache, 2 * valuesInSegment, { from: 100 })
    expect(large.value).toBeUndefined()
    expect(empty.value?.length).toBe(0)
  })

  test('forgets everything', () => {
    const cache = new ValueCache(4 * segmentBytes)
    const versions = write(cache, valuesInSegment)
    cache.clear()
    for (const { value } of versions) expect(value).toBeUndefined()
    for (const again of write(cache, valuesInSegment)) expectValue(again)
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
    return Object.assign(written, { buffer: (written.value as Uint8Array).buffer })
  })
}

function version(revision: number): Version {
  const fields = { key: 'a', seq: revision, revision, createRevision: 1, version: 1, lease: 0n, valueBytes }
  return new Version({ ...fields, previous: undefined, value: undefined })
}

function bytesOf({ revision }: Version): Buffer {
  return Buffer.alloc(valueBytes, `revision ${revision} `)
}

function expectValue(written: Version): void {
  expect(written.value === undefined ? -1 : Buffer.compare(written.value, bytesOf(written))).toBe(0)
}
