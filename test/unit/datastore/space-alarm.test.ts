import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type AlarmCause, SpaceAlarm } from '../../../src/datastore/mvcc/space-alarm.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const minuteMs = 60_000

/** An alarm over what is kept of it, on a disk that has room or not. */
function alarmOn(disk: { hasRoom: boolean }, meta = new Map<string, string>()) {
  let looks = 0
  const changes: (AlarmCause | undefined)[] = []
  const log = {
    readMeta: (name: string) => meta.get(name),
    appendMeta: (name: string, value: string) => void meta.set(name, value),
    tryRoom: (callback: (hasRoom: boolean) => void) => {
      looks++
      callback(disk.hasRoom)
    },
  }
  const alarm = new SpaceAlarm({ log, onChange: (cause) => changes.push(cause) })
  return { alarm, meta, changes, looks: () => looks }
}

test('the alarm of a full disk is lowered once there is room, and not before', () => {
  const disk = { hasRoom: false }
  const { alarm, meta, changes, looks } = alarmOn(disk)
  alarm.diskIsFull()
  vi.advanceTimersByTime(minuteMs)
  expect([alarm.cause, looks() > 5]).toEqual(['disk', true])
  disk.hasRoom = true
  vi.advanceTimersByTime(minuteMs)
  expect([alarm.cause, meta.get('no_space'), changes]).toEqual([undefined, '0', ['disk', undefined]])
  const before = looks()
  vi.advanceTimersByTime(minuteMs)
  expect(looks()).toBe(before)
})

test.each(['quota', 'request'] as const)('the alarm of a %s stays, also over a restart', (cause) => {
  const { alarm, meta, looks } = alarmOn({ hasRoom: true })
  alarm.raise(cause)
  alarm.diskIsFull()
  alarm.diskHasRoom()
  vi.advanceTimersByTime(minuteMs)
  expect([alarm.cause, looks()]).toEqual([cause, 0])
  const next = alarmOn({ hasRoom: true }, meta)
  vi.advanceTimersByTime(minuteMs)
  expect([next.alarm.cause, next.looks()]).toEqual(['quota', 0])
  next.alarm.lower()
  expect(alarmOn({ hasRoom: true }, meta).alarm.cause).toBeUndefined()
})

test('the cause is remembered over a restart: a full disk that was freed meanwhile is found so', () => {
  const { alarm, meta } = alarmOn({ hasRoom: false })
  alarm.diskIsFull()
  expect(meta.get('no_space')).toBeUndefined()
  // Compaction goes on, and what it writes fits.
  alarm.diskHasRoom()
  expect(meta.get('no_space')).toBe('disk')
  alarm.stop()
  const next = alarmOn({ hasRoom: true }, meta)
  expect(next.alarm.cause).toBe('disk')
  vi.advanceTimersByTime(minuteMs)
  expect(next.alarm.cause).toBeUndefined()
})

test('the alarm that earlier versions have left has no cause, and stays', () => {
  const { alarm } = alarmOn({ hasRoom: true }, new Map([['no_space', '1']]))
  vi.advanceTimersByTime(minuteMs)
  expect(alarm.cause).toBe('quota')
})
