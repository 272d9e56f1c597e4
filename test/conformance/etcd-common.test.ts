import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runTests } from './go-suite.ts'

const suite = join(root, 'test/conformance/common/run.sh')
const passes = 247

test('etcd’s own tests for any server: tests/common', async () => {
  const directory = join(root, 'build/conformance/common')
  mkdirSync(directory, { recursive: true })
  const { results, exitCode } = await runTests(suite, [directory, '-test.v'], { directory, env: {} })
  expect(results.filter((line) => line.startsWith('--- FAIL'))).toEqual([])
  expect(exitCode).toBe(0)
  expect(results.filter((line) => line.startsWith('--- PASS')).length).toBe(passes)
})
