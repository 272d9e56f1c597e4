import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runTests } from './go-suite.ts'

const suite = join(root, 'test/conformance/storage/run.sh')

/** Upstream's own tests of what lies on etcd, each against a datastore of its own: how many pass, and how many upstream skips. */
test.each([
  ['v0.37.1', 'pkg/storage/etcd3', 509, 0],
  ['v0.36.4', 'pkg/storage/etcd3', 335, 0],
  ['v0.37.1', 'pkg/storage/cacher', 645, 4],
  ['v0.37.1', 'pkg/registry/generic/registry', 100, 0],
])('k8s.io/apiserver %s: all of %s', async (version, name, passes, skips) => {
  const directory = join(root, 'build/conformance', `apiserver-${version}`)
  mkdirSync(directory, { recursive: true })
  const { results, exitCode } = await runTests(suite, [directory, '-test.v'], {
    directory,
    env: { APISERVER_VERSION: version, PACKAGE: name },
  })
  const count = (outcome: string): number =>
    results.filter((line) => line.startsWith(`--- ${outcome}`)).length
  expect(results.filter((line) => line.startsWith('--- FAIL'))).toEqual([])
  expect(exitCode).toBe(0)
  expect({ passes: count('PASS'), skips: count('SKIP') }).toEqual({ passes, skips })
})
