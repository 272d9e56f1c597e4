import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { renderYaml } from '../../../src/base/yaml.ts'

test('data are read back as they were, also by YAML 1.1', () => {
  const words = [
    ...[
      'plain',
      '/a/path',
      'https://[::1]:6443',
      'a b',
      ' a',
      'a: b',
      'a:',
      '#a',
      'a #b',
      '- a',
      '*a',
      '&a',
      '!a',
    ],
    ...['true', 'Yes', 'off', 'N', 'null', '~', '1', '1e3', '0x1', '.5', '2026-01-01', '=', '<<', '@a', '`a'],
    ...['', '"', "'", '\\', 'é', '\n', '\u0000', '\u2028', '{', '[', '%a', '?', 'AAA=', 'a+b/c=='],
  ]
  const data = {
    words,
    nested: { list: [{ a: 'x', b: ['y', { c: 1 }] }, 'z', [], {}], empty: {}, none: [] },
    numbers: [0, -1, 1.5],
    flags: [true, false],
    ...Object.fromEntries(words.filter((word) => word !== '__proto__').map((word) => [word, word])),
  }
  const text = renderYaml(data)
  expect(parse(text)).toEqual(data)
  expect(parse(text, { version: '1.1' })).toEqual(data)
})

test('it reads as somebody would write it', () => {
  const text = renderYaml({
    clusters: [{ name: 'k8s', cluster: { server: 'https://127.0.0.1:6443' } }],
    'current-context': 'k8s',
  })
  expect(text).toBe(`clusters:
  - name: k8s
    cluster:
      server: https://127.0.0.1:6443
current-context: k8s
`)
})
