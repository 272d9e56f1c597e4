import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { OpenRanges } from '../../../src/datastore/mvcc/open-ranges.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

test('what reads at the compacted revision or after it holds nothing up', () => {
  const ranges = new OpenRanges()
  const close = ranges.open(5, () => undefined)
  expect([4, 5, 6].map((revision) => ranges.isOpenBefore(revision))).toEqual([false, false, true])
  close()
  expect(ranges.isOpenBefore(6)).toBe(false)
})

test('what has been read for a minute is ended, and only that', () => {
  const ranges = new OpenRanges()
  const ended: string[] = []
  const open = (name: string, revision: number): void => {
    const close = ranges.open(revision, () => {
      ended.push(name)
      close()
    })
  }
  open('early', 5)
  open('newer', 9)
  vi.advanceTimersByTime(59_000)
  open('late', 5)
  expect(ranges.isOpenBefore(6)).toBe(true)
  vi.advanceTimersByTime(2000)
  expect(ranges.isOpenBefore(6)).toBe(true)
  expect(ended).toEqual(['early'])
  vi.advanceTimersByTime(60_000)
  expect(ranges.isOpenBefore(6)).toBe(false)
  expect(ended).toEqual(['early', 'late'])
})
