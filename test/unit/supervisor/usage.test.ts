import { expect, test } from 'vitest'
import { type Look, UsageSampler } from '../../../src/supervisor/usage.ts'

/** A sampler of one process whose clock and kernel the test has. */
function oneProcess() {
  const process: { look: Look | undefined; nowMs: number } = {
    look: { startTicks: 1, processorMs: 5_000, ageMs: 3_600_000 },
    nowMs: 1_000_000,
  }
  const sampler = new UsageSampler({ pids: () => [7], nowMs: () => process.nowMs, look: () => process.look })
  return {
    sampler,
    /** So much later it has used so much more, and is looked at. */
    pass(timeMs: number, processorMs: number) {
      process.nowMs += timeMs
      const { look } = process
      process.look = look && {
        ...look,
        processorMs: look.processorMs + processorMs,
        ageMs: look.ageMs + timeMs,
      }
      sampler.sample()
    },
    process,
    millicores: () => sampler.usage(7).cpuMillicores,
    [Symbol.dispose]: () => sampler[Symbol.dispose](),
  }
}

test('the processor time is that of the last minute, so that steps of 10 ms do not show', () => {
  using child = oneProcess()
  child.sampler.sample()
  for (let look = 0; look < 30; look++) child.pass(10_000, 10)
  expect(child.millicores()).toBe(1)
})

test('what was before the last minute does not count', () => {
  using child = oneProcess()
  child.sampler.sample()
  child.pass(10_000, 10_000)
  expect(child.millicores()).toBe(1_000)
  for (let look = 0; look < 6; look++) child.pass(10_000, 1_000)
  expect(child.millicores()).toBe(100)
})

test('of a process younger than that it is that of its life', () => {
  using child = oneProcess()
  child.process.look = { startTicks: 9, processorMs: 1_000, ageMs: 4_000 }
  expect(child.millicores()).toBe(250)
  child.sampler.sample()
  child.pass(6_000, 0)
  expect(child.millicores()).toBe(100)
})

test('a process that was never looked at has that of its life, too', () => {
  using child = oneProcess()
  expect(child.millicores()).toBe(1)
})

test('another process with the same number begins anew', () => {
  using child = oneProcess()
  child.sampler.sample()
  child.pass(10_000, 9_000)
  child.process.look = { startTicks: 2, processorMs: 100, ageMs: 100_000 }
  child.sampler.sample()
  child.pass(10_000, 100)
  expect(child.millicores()).toBe(10)
})

test('of this process it is known, of one that is gone it is not', () => {
  using sampler = new UsageSampler({ pids: () => [process.pid] })
  const own = sampler.usage(process.pid)
  expect(own.memoryBytes).toBeGreaterThan(1024 * 1024)
  expect(own.cpuMillicores).toBeGreaterThan(0)
  expect(sampler.usage(2 ** 22 + 1)).toEqual({ memoryBytes: null, cpuMillicores: null })
})

test('memory is read once in two seconds, however often it is asked for', () => {
  let reads = 0
  let nowMs = 0
  using sampler = new UsageSampler({
    pids: () => [7],
    nowMs: () => nowMs,
    look: () => undefined,
    readMemory: () => (reads += 1),
  })
  const ask = () => sampler.usage(7).memoryBytes
  expect([ask(), ask()]).toEqual([1, 1])
  nowMs += 2_000
  expect([ask(), ask()]).toEqual([2, 2])
})
