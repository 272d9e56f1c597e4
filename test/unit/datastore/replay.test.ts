import { join } from 'node:path'
import { expect, test } from 'vitest'
import { replay } from '../../../bench/datastore/replay.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { temporaryDirectory } from './support.ts'

const minute = 60_000

// A tenth of the day that `make replay-day` replays, with a tenth of its nodes: what a slow machine does in a few minutes.
test('a busy cluster leaves the file within twice the size of its rows, and the WAL under 64 MB', {
  timeout: 10 * minute,
}, async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const result = await replay({ path, nodes: 100, hours: 2.4 })
  expect(result.writes).toBeGreaterThan(100_000)
  expect(result.worstRatio).toBeLessThan(2)
  expect(result.longestWalBytes).toBeLessThan(64e6)
  expect(checkDatabase({ path })).toEqual([])
})
