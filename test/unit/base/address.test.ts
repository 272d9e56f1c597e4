import { describe, expect, test } from 'vitest'
import {
  addressAt,
  contains,
  formatAddress,
  formatRange,
  isLoopback,
  overlaps,
  parseAddress,
  parseRange,
  type Range,
} from '../../../src/base/address.ts'

function range(text: string): Range {
  return parseRange(text) ?? expect.unreachable(`${text} is no range`)
}

describe('an address', () => {
  test.each([
    ['10.0.0.1', '10.0.0.1'],
    ['255.255.255.255', '255.255.255.255'],
    ['0.0.0.0', '0.0.0.0'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0::00A', 'fd00::a'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ['fe80::', 'fe80::'],
  ])('%s is %s', (text, canonical) => {
    const address = parseAddress(text)
    expect(address && formatAddress(address)).toBe(canonical)
  })

  test.each(['', '10.0.0', '10.0.0.256', '010.0.0.1', '1::2::3', 'fe80::1%eth0', 'host', '10.0.0.1 '])(
    '%j is none',
    (text) => {
      expect(parseAddress(text)).toBeUndefined()
    },
  )
})

describe('a range', () => {
  test.each([
    ['10.96.0.0/12', '10.96.0.0/12'],
    ['10.97.3.4/12', '10.96.0.0/12'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['10.0.0.1/32', '10.0.0.1/32'],
    ['fd00:1:2:3:4::/64', 'fd00:1:2:3::/64'],
  ])('%s is %s', (text, canonical) => {
    expect(formatRange(range(text))).toBe(canonical)
  })

  test.each(['10.0.0.0', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/08', '/8', 'fd00::/129', '10.0.0.0/8/8'])(
    '%j is none',
    (text) => {
      expect(parseRange(text)).toBeUndefined()
    },
  )

  test('holds its addresses and no others', () => {
    const [first, last] = ['10.96.0.0', '10.111.255.255'].map((text) => parseAddress(text))
    expect(first && contains(range('10.96.0.0/12'), first)).toBe(true)
    expect(last && contains(range('10.96.0.0/12'), last)).toBe(true)
    const outside = ['10.112.0.0', '10.95.255.255', '::a60:0'].map((text) => parseAddress(text))
    for (const address of outside) expect(address && contains(range('10.96.0.0/12'), address)).toBe(false)
  })

  test.each([
    ['10.0.0.0/8', '10.96.0.0/12', true],
    ['10.96.0.0/12', '10.0.0.0/8', true],
    ['10.96.0.0/12', '10.112.0.0/12', false],
    ['::/0', '10.0.0.0/8', false],
    ['fd00::/16', 'fd00:1::/32', true],
  ])('%s and %s: overlap %s', (one, other, expected) => {
    expect(overlaps(range(one), range(other))).toBe(expected)
  })

  test('counts its addresses, and ends', () => {
    const tenth = addressAt(range('fd00::/112'), 10)
    expect(tenth && formatAddress(tenth)).toBe('fd00::a')
    expect(addressAt(range('10.0.0.0/29'), 8)).toBeUndefined()
  })
})

test.each([
  ['127.0.0.1', true],
  ['127.255.0.1', true],
  ['::1', true],
  ['128.0.0.1', false],
  ['::2', false],
])('%s is loopback: %s', (text, expected) => {
  const address = parseAddress(text)
  expect(address && isLoopback(address)).toBe(expected)
})
