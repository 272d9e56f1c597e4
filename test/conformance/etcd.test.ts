import { beforeAll, expect, test } from 'vitest'
import { type SuiteResult, runGoSuite } from './go-suite.ts'

/** The same table of cases against etcd 3.7.3, by which a wrong expectation shows, and against this server. */
let result: SuiteResult

beforeAll(async () => {
  result = await runGoSuite('etcd', {})
}, 600_000)

test.each(['etcd', 'k8s'])('%s answers as the table says', (kind) => {
  const own = (name: string): boolean => name.split('/').at(-1) === kind
  expect(result.others.filter((line) => line.includes(`/${kind} `))).toEqual([])
  expect(result.passed.filter(own).length).toBeGreaterThan(30)
})

test('nothing is skipped, and both are asked the same', () => {
  expect(result.others).toEqual([])
  expect(result.exitCode).toBe(0)
  const count = (kind: string): number => result.passed.filter((name) => name.endsWith(`/${kind}`)).length
  expect(count('etcd')).toBe(count('k8s'))
})
