import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runTests } from './go-suite.ts'

const suite = join(root, 'test/conformance/storage/run.sh')

/** Upstream's own storage tests, each against a datastore of its own, and how many they are. */
test.each([
  ['v0.37.1', 509],
  ['v0.36.4', 335],
])('k8s.io/apiserver %s: all of pkg/storage/etcd3', async (version, tests) => {
  const directory = join(root, 'build/conformance', `apiserver-${version}`)
  mkdirSync(directory, { recursive: true })
  const { results, exitCode } = await runTests(suite, [directory, '-test.v'], {
    directory,
    env: { APISERVER_VERSION: version },
  })
  expect(results.filter((line) => !line.startsWith('--- PASS'))).toEqual([])
  expect(exitCode).toBe(0)
  expect(results.length).toBe(tests)
})
