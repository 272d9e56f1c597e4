import { expect, test } from 'vitest'
import { ClockWatch } from '../../../src/base/clock.ts'

test('a clock that is set is told, whatever time has passed', () => {
  let wallMs = 1_000_000
  let passedMs = 500
  const watch = new ClockWatch(
    () => wallMs,
    () => passedMs,
  )
  const pass = (ms: number, setByMs = 0) => {
    passedMs += ms
    wallMs += ms + setByMs
    return watch.setByMs()
  }
  expect(pass(60_000)).toBe(0)
  expect(pass(60_000, 86_400_000)).toBe(86_400_000)
  expect(pass(60_000)).toBe(0)
  expect(pass(10, -3_600_000)).toBe(-3_600_000)
})
