import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runGoSuite } from './go-suite.ts'

/** Clients and watchers of one server that is killed again and again: test/conformance/linearizability. */
test('what clients and watchers see through kills and restarts is linearizable', async () => {
  const { passed, others, exitCode } = await runGoSuite('linearizability', {
    HISTORY: join(root, 'build/conformance/linearizability/history.html'),
  })
  expect(others).toEqual([])
  expect(passed.toSorted()).toEqual(['TestLinearizability', 'TestModel'])
  expect(exitCode).toBe(0)
})
