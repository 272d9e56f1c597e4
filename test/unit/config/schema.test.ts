import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { renderDocs } from '../../../src/config/docs.ts'
import { duration } from '../../../src/config/table/kinds.ts'
import { environmentName, Refused } from '../../../src/config/table/option.ts'
import { paths, socketPathLimitBytes } from '../../../src/config/paths.ts'
import { schema } from '../../../src/config/schema.ts'
import { suggest } from '../../../src/config/table/suggest.ts'

test('docs/configuration.md is what the schema generates (make generate)', () => {
  const file = new URL('../../../docs/configuration.md', import.meta.url)
  expect(readFileSync(file, 'utf8')).toBe(renderDocs())
})

describe('the schema', () => {
  test.each(Object.entries(schema))('%s is described in sentences', (_, { description, kind }) => {
    expect(description).toMatch(/^[A-Z].*\.$/)
    expect(kind.allowed).not.toMatch(/\.$/)
  })

  test('allows its own defaults', () => {
    for (const [name, option] of Object.entries(schema)) {
      if (option.default === undefined || Array.isArray(option.default)) continue
      expect(option.kind.parse(option.defaultText ?? String(option.default)), name).toEqual(option.default)
    }
  })

  test('names variables after the flags', () => {
    expect(environmentName('node-ip')).toBe('K8S_NODE_IP')
  })
})

describe('a near miss', () => {
  const names = ['node-name', 'node-ip', 'node-label', 'data-dir', 'v', 'disable']
  test.each([
    ['nodename', 'node-name'],
    ['nodeName', 'node-name'],
    ['NODE_NAME', 'node-name'],
    ['node-nmae', 'node-name'],
    ['node-labels', 'node-label'],
    ['dat-dir', 'data-dir'],
    ['disabel', 'disable'],
    ['w', undefined],
    ['token', undefined],
    ['', undefined],
  ])('%s is taken for %s', (given, expected) => {
    expect(suggest(given, names)).toBe(expected)
  })
})

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['5m', 300_000],
  ['1h', 3_600_000],
  ['0s', 0],
])('the duration %s has %s ms', (text, expected) => {
  expect(duration.parse(text)).toBe(expected)
})

test.each(['5', '1.5s', '-1s', '5 m', '', 's', '1d'])('%j is no duration', (text) => {
  expect(duration.parse(text)).toBeInstanceOf(Refused)
})

describe('the paths', () => {
  test('lie in the data directory', () => {
    expect(paths({ dataDir: '/var/lib/k8s' })).toMatchObject({
      database: '/var/lib/k8s/db/state.db',
      controlSocket: '/var/lib/k8s/run/control.sock',
      containerdSocket: '/var/lib/k8s/run/containerd/containerd.sock',
    })
  })

  test('of sockets stay short enough, however deep the data directory is', () => {
    for (const depth of [69, 70, 71, 300]) {
      const { containerdSocket, runDir } = paths({ dataDir: `/${'d'.repeat(depth - 1)}` })
      expect(Buffer.byteLength(`${containerdSocket}.ttrpc`)).toBeLessThanOrEqual(socketPathLimitBytes)
      expect(runDir.startsWith('/run/k8s/')).toBe(depth > 70)
    }
  })

  test('of two deep data directories differ', () => {
    const [one, other] = ['a', 'b'].map((end) => paths({ dataDir: `/${'d'.repeat(100)}${end}` }).runDir)
    expect(one).not.toBe(other)
  })
})
