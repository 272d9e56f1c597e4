import { describe, expect, test } from 'vitest'
import { LastLines, LineSplitter, RateLimit } from '../../../src/supervisor/log-lines.ts'

function split(chunks: readonly (string | Buffer)[], lengthLimit?: number): string[] {
  const lines: string[] = []
  const splitter = new LineSplitter((line) => lines.push(line), lengthLimit)
  for (const chunk of chunks) splitter.push(Buffer.from(chunk))
  splitter.end()
  return lines
}

describe('lines are the same however the pipe delivers them', () => {
  const text = Buffer.from('one\n\nzwölf → 12\r\nlast')
  const lines = ['one', '', 'zwölf → 12', 'last']

  test.each(Array.from({ length: text.length }, (_, size) => size + 1))('in chunks of %i bytes', (size) => {
    const chunks = Array.from({ length: Math.ceil(text.length / size) }, (_, index) =>
      text.subarray(index * size, (index + 1) * size),
    )
    expect(split(chunks)).toEqual(lines)
  })
})

describe('a line beyond the limit is cut and says by how much', () => {
  test.each([
    ['at once', ['abcdefgh\nnext\n']],
    ['in parts', ['abc', 'de', 'fgh', '\nnext\n']],
    ['at the end', ['next\n', 'abcdefgh']],
  ])('%s', (_, chunks) => {
    expect(split(chunks, 5)).toContain('abcde [cut: 3 more bytes]')
    expect(split(chunks, 5)).toContain('next')
  })

  test('one of exactly the limit is whole', () => {
    expect(split(['abcde\n'], 5)).toEqual(['abcde'])
  })
})

test('what would drive a terminal is shown instead', () => {
  expect(split(['\u001b[2Jtab\there\u0007\u009b\n'])).toEqual(['\\x1b[2Jtab\there\\x07\\x9b'])
})

test('bytes that are not UTF-8 are replaced', () => {
  expect(split([Buffer.from([0x61, 0xff, 0x62, 0x0a])])).toEqual(['a\ufffdb'])
})

describe('the last lines', () => {
  test.each([
    [2, ['0', '1']],
    [3, ['0', '1', '2']],
    [5, ['2', '3', '4']],
    [7, ['4', '5', '6']],
  ])('after %i of them', (count, expected) => {
    const last = new LastLines(3)
    for (let index = 0; index < count; index++) last.push(String(index))
    expect(last.list()).toEqual(expected)
    expect(last.list(1)).toEqual(expected.slice(-1))
  })
})

test('a rate limit lets a burst through, then what its rate allows', () => {
  let nowMs = 0
  const limit = new RateLimit({ perSecond: 2, burst: 3, nowMs: () => nowMs })
  const takeAll = () => {
    let taken = 0
    while (limit.take()) taken += 1
    return taken
  }
  expect(takeAll()).toBe(3)
  nowMs = 400
  expect(takeAll()).toBe(0)
  nowMs = 1_000
  expect(takeAll()).toBe(2)
  nowMs = 1_000_000
  expect(takeAll()).toBe(3)
})
