import { expect, test } from 'vitest'
import { nextTime, parseCron } from '../../../src/config/table/cron.ts'

function next(text: string, after: Date): Date | undefined {
  const cron = parseCron(text)
  return cron === undefined ? undefined : nextTime(cron, after)
}

/** In the machine's time zone, as schedules are. */
const at = (year: number, month: number, day: number, hour = 0, minute = 0) =>
  new Date(year, month - 1, day, hour, minute)

test.each([
  ['0 */12 * * *', at(2026, 11, 21, 10, 5), at(2026, 11, 21, 12)],
  ['0 */12 * * *', at(2026, 11, 21, 12), at(2026, 11, 22)],
  ['*/15 * * * *', at(2026, 11, 21, 23, 50), at(2026, 11, 22)],
  ['30 4 1,15 * *', at(2026, 11, 15, 5), at(2026, 12, 1, 4, 30)],
  ['0 0 29 feb *', at(2026, 11, 21), at(2028, 2, 29)],
  ['0 9-17/4 * * mon-fri', at(2026, 11, 21), at(2026, 11, 23, 9)],
  // Both kinds of days: either is enough. 27 November 2026 is a Friday.
  ['0 0 13 * fri', at(2026, 11, 21), at(2026, 11, 27)],
  ['0 0 * * 7', at(2026, 11, 21), at(2026, 11, 22)],
  ['59 23 31 12 *', at(2026, 12, 31, 23, 59), at(2027, 12, 31, 23, 59)],
  ['5/20 * * * *', at(2026, 11, 21, 10, 26), at(2026, 11, 21, 10, 45)],
])('%s comes after %s at %s', (text, after, expected) => {
  expect(next(text, after)).toEqual(expected)
})

test.each([
  '',
  '* * * *',
  '* * * * * *',
  '60 * * * *',
  '* 24 * * *',
  '* * 0 * *',
  '* * * 13 *',
  '* * * * 8',
  '5-1 * * * *',
  '*/0 * * * *',
  '*-5 * * * *',
  'x * * * *',
  '0 0 30 2 *',
  '1,,2 * * * *',
])('no schedule: %j', (text) => {
  expect(parseCron(text)).toBeUndefined()
})
