import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runGoSuite } from './go-suite.ts'

/**
 * Clients and watchers of one server that is killed again and again, and of the proxy of mode ha, behind which members of an
 * etcd fail: test/conformance/linearizability. FAULT_SEED repeats the faults, FAULT_SECONDS and FAULT_ROUNDS ask for more of them.
 */
test('what clients and watchers see through kills and restarts is linearizable', async () => {
  const { passed, others, exitCode } = await runGoSuite('linearizability', {
    PROXY: `${process.execPath} ${join(root, 'test/conformance/linearizability/proxy.ts')}`,
    HISTORY: join(root, 'build/conformance/linearizability/history.html'),
  })
  expect(others).toEqual([])
  expect(passed.toSorted()).toEqual(['TestLinearizability', 'TestModel', 'TestProxy', 'TestSettledByLog'])
  expect(exitCode).toBe(0)
})
