import { expect, test } from 'vitest'
import { describeFault, type Fault, faultKinds, randomFaults } from '../../soak/faults.ts'

const kinds = Object.keys(faultKinds)

function first(seed: number, count: number): Fault[] {
  const faults = randomFaults(seed, 3)
  return Array.from({ length: count }, () => faults.next().value)
}

test('a seed gives the same faults each time, and another one others', () => {
  expect(first(7, 100)).toEqual(first(7, 100))
  expect(first(8, 100)).not.toEqual(first(7, 100))
})

test('each kind comes once before one comes again', () => {
  const names = first(1, 2 * kinds.length).map(({ kind }) => kind)
  expect(names.slice(0, kinds.length).toSorted()).toEqual(kinds.toSorted())
  expect(names.slice(kinds.length).toSorted()).toEqual(kinds.toSorted())
})

test('all servers are hit, never all at once', () => {
  const faults = first(2, 500)
  expect(new Set(faults.map(({ servers }) => servers.join()))).toEqual(
    new Set(['0', '1', '2', '0,1', '0,2', '1,2']),
  )
  for (const { kind, servers } of faults) expect(servers).toHaveLength(faultKinds[kind].servers)
  expect(describeFault({ kind: 'cut-majority', servers: [0, 2], holdMs: 1500, calmMs: 0 })).toBe(
    'server 1 and 3: two are cut off, 1.5 s',
  )
})
