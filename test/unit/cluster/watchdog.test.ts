import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { feedWatchdog } from '../../../src/cluster/watchdog.ts'
import { until } from '../supervisor/support.ts'

test('the watchdog is fed while the storage answers, and not while it hangs', async () => {
  let fed = 0
  let pings = 0
  let hanging = Promise.withResolvers<void>()
  hanging.resolve()
  const ping = () => {
    pings += 1
    return hanging.promise
  }
  const notify = { watchdog: () => void (fed += 1), watchdogMs: 3 }
  using _watchdog = feedWatchdog({ notify, storage: { ping }, log: silentLogger })
  await until(() => fed > 3)
  hanging = Promise.withResolvers<void>()
  const before = pings
  await until(() => pings > before)
  const fedBefore = fed
  // Ten turns of what would have fed it.
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setTimeout(resolve, 3))
  expect(fed).toBe(fedBefore)
  hanging.resolve()
  await until(() => fed > fedBefore)
})

test('nobody is told where no watchdog waits', async () => {
  let pings = 0
  const ping = async () => void (pings += 1)
  const notify = { watchdog: () => {}, watchdogMs: undefined }
  feedWatchdog({ notify, storage: { ping }, log: silentLogger })[Symbol.dispose]()
  await new Promise(setImmediate)
  expect(pings).toBe(0)
})
