import { expect, test } from 'vitest'
import { KeyArena } from '../../../src/datastore/mvcc/key-arena.ts'

const before = 'in the same memory, before '

function sorted(keys: readonly string[]): string[] {
  const arena = new KeyArena()
  for (const key of keys) {
    const memory = Buffer.from(`${before}${key}, and after`, 'latin1')
    arena.add({ memory, start: before.length, end: before.length + key.length })
  }
  return [...arena.sorted()].map((place) => arena.text(place))
}

/** As the index compares them: by their bytes. */
function byBytes(keys: readonly string[]): string[] {
  return keys.toSorted((one, other) => (one < other ? -1 : 1))
}

test('keys come out in the order of their bytes', () => {
  const names = Array.from({ length: 20_000 }, (_, place) => {
    const kind = ['pods', 'events', 'configmaps', 'leases/kube-node-lease'][place % 4]
    return `/registry/${kind}/namespace-${(place * 7919) % 101}/name-${(place * 104_729) % 1_000_003}`
  })
  expect(sorted(names)).toEqual(byBytes(names))
})

test('a key that another one begins with is before it, also with bytes of zero', () => {
  const keys = [
    '',
    '\0',
    '\0\0',
    'a',
    'a\0',
    'a\0\0',
    'aaaaaa',
    'aaaaaa\0',
    'aaaaaaa',
    'a\xff',
    '\xff',
    '\xff\xff\xff\xff\xff\xff\xff',
  ]
  expect(sorted(keys)).toEqual(byBytes(keys))
  const many = Array.from({ length: 100 }, (_, length) => 'x'.repeat(length))
  expect(sorted(many.toReversed())).toEqual(many)
})

test('keys of any bytes and lengths, at random', () => {
  const keys = new Set<string>()
  for (let size = 0; size < 5000; size++) {
    const length = Math.floor(Math.random() * 20)
    keys.add(
      String.fromCharCode(
        ...Array.from({ length }, () => [0, 97, 98, 255][Math.floor(Math.random() * 4)] as number),
      ),
    )
  }
  expect(sorted([...keys])).toEqual(byBytes([...keys]))
})

test('long keys that differ at their end alone, and none at all', () => {
  const start = 'k'.repeat(100_000)
  const keys = Array.from({ length: 50 }, (_, place) => `${start}${(place * 37) % 50}`)
  expect(sorted(keys)).toEqual(byBytes(keys))
  expect(sorted([])).toEqual([])
})

test('keys that come more than once stay together', () => {
  const keys = Array.from({ length: 300 }, (_, place) => `/registry/pods/${place % 3}`)
  expect(sorted(keys)).toEqual(keys.toSorted())
})
