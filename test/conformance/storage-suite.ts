import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, runTests } from './go-suite.ts'

const suite = join(root, 'test/conformance/storage/run.sh')

/** Of k8s.io/apiserver. */
export interface StorageTests {
  readonly version: string
  readonly package: string
  readonly passes: number
  /** Those that upstream itself skips. */
  readonly skips: number
}

/** Upstream's own tests of what lies on etcd, each against a datastore of its own. */
export function storageTests(given: readonly StorageTests[]): void {
  test.each(given)('k8s.io/apiserver $version: all of $package', async (asked) => {
    const { version, passes, skips } = asked
    const directory = join(root, 'build/conformance', `apiserver-${version}`)
    mkdirSync(directory, { recursive: true })
    const { results, exitCode } = await runTests(suite, [directory, '-test.v'], {
      directory,
      env: { APISERVER_VERSION: version, PACKAGE: asked.package },
    })
    const count = (outcome: string): number =>
      results.filter((line) => line.startsWith(`--- ${outcome}`)).length
    expect(results.filter((line) => line.startsWith('--- FAIL'))).toEqual([])
    expect(exitCode).toBe(0)
    expect({ passes: count('PASS'), skips: count('SKIP') }).toEqual({ passes, skips })
  })
}
