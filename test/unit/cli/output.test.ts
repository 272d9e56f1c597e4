import { expect, test } from 'vitest'
import { renderSince } from '../../../src/cli/since.ts'
import { renderTable } from '../../../src/cli/table.ts'

test('a table has columns as wide as their widest cell', () => {
  expect(
    renderTable(
      ['NAME', 'STATE'],
      [
        ['kube-apiserver', 'ready'],
        ['x', ''],
      ],
    ),
  ).toBe('NAME             STATE\nkube-apiserver   ready\nx\n')
})

test.each([
  [0, '0s'],
  [119_999, '119s'],
  [120_000, '2m'],
  [7_199_000, '119m'],
  [7_200_000, '2h'],
  [172_800_000, '2d'],
  [-5_000, '0s'],
])('%d ms ago is %s', (elapsedMs, expected) => {
  const since = '2026-11-21T10:00:00.000Z'
  expect(renderSince(since, Date.parse(since) + elapsedMs)).toBe(expected)
})
