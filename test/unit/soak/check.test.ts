import { expect, test } from 'vitest'
import { findProblems, relistsOf } from '../../soak/check.ts'
import type { History, Read, WatchStep, Write } from '../../soak/history.ts'

// One object is created with 1 (version 11), changed to 2 (13) and 3 (15), and deleted (17); the last write is 4 (19).

const created = write({ kind: 'create', value: 1, startMs: 10, version: 11 })
const changed = write({ kind: 'update', value: 2, startMs: 20, version: 13 })
const again = write({ kind: 'update', value: 3, startMs: 30, version: 15 })
const deleted = write({ kind: 'delete', value: 3, startMs: 40 })
const last = write({ kind: 'create', name: 'last', value: 4, startMs: 50, version: 19 })

const begin: WatchStep = { type: 'LISTED', version: 10, objects: {} }
const steps: readonly WatchStep[] = [
  begin,
  { type: 'ADDED', name: 'a', value: 1, version: 11 },
  { type: 'MODIFIED', name: 'a', value: 2, version: 13 },
  { type: 'MODIFIED', name: 'a', value: 3, version: 15 },
  { type: 'DELETED', name: 'a', value: 3, version: 17 },
  { type: 'ADDED', name: 'last', value: 4, version: 19 },
]
const lists: readonly Read[] = [
  list({ startMs: 5, version: 10, objects: {} }),
  list({ startMs: 15, version: 12, objects: { a: 1 } }),
  list({ startMs: 25, version: 14, objects: { a: 2 } }),
  list({ startMs: 35, version: 16, objects: { a: 3 } }),
  list({ startMs: 45, version: 18, objects: {} }),
  list({ startMs: 55, version: 20, objects: { last: 4 } }),
]
const right: History = {
  writes: [created, changed, again, deleted, last],
  reads: lists,
  unansweredReads: [],
  watches: [steps],
  resumed: 0,
  last: 'last',
}

/** Five milliseconds long. */
function write(given: Pick<Write, 'kind' | 'value' | 'startMs'> & Partial<Write>): Write {
  return { name: 'a', server: 's', endMs: given.startMs + 4, outcome: 'done', answer: '200', ...given }
}

function list(given: Pick<Read, 'startMs' | 'objects'> & Partial<Read>): Read {
  return { server: 's', endMs: given.startMs + 4, ...given }
}

function get(startMs: number, objects: Record<string, number>): Read {
  return list({ name: 'a', startMs, objects })
}

const without = (version: number) => steps.filter((step) => step.version !== version)

test('a history in which all is well has no problems', () => {
  expect(findProblems(right)).toEqual([])
  expect(relistsOf(right)).toBe(0)
})

test.each<[string, Partial<History>, string]>([
  [
    'a write that is lost',
    { reads: [...lists, list({ startMs: 36, endMs: 38, version: 16, objects: {} })] },
    'does not have a, which was there with 3',
  ],
  [
    'an object that is lost',
    { reads: [...lists, { ...get(36, {}), endMs: 38 }] },
    'does not have a, which was there with 3',
  ],
  ['an older value', { reads: [...lists, get(36, { a: 2 })] }, 'has a with 2, and 3 was known before'],
  [
    'a list of an older version',
    { reads: [...lists, list({ startMs: 36, version: 12, objects: { a: 3 } })] },
    'is of version 12, and 15 was known before',
  ],
  [
    'a list that is older than another one',
    {
      reads: [
        ...lists,
        list({ startMs: 46, version: 17, objects: {} }),
        list({ startMs: 51, version: 16, objects: {} }),
      ],
    },
    'is of version 16, and 18 was known before',
  ],
  ['what was deleted', { reads: [...lists, get(46, { a: 3 })] }, 'has a, which was deleted before'],
  [
    'what nobody has written',
    { reads: [...lists, get(36, { a: 9 })] },
    'has a with 9, which nobody has written',
  ],
  [
    'what is written later',
    { reads: [...lists, get(15, { a: 3 })] },
    'has a with 3, which nobody has written',
  ],
])('a read of %s is found', (_, part, message) => {
  expect(findProblems({ ...right, ...part }).join('\n')).toContain(message)
})

test.each<[string, readonly WatchStep[], string]>([
  ['leaves out an event', without(13), 'the update of a with 2 (version 13) is missing'],
  ['leaves out a deletion', without(17), 'the deletion of a is missing'],
  [
    'tells of an event twice',
    steps.flatMap((step) => (step.version === 13 ? [step, step] : [step])),
    'MODIFIED a with 2 (version 13) came after 13: twice, or out of order',
  ],
  [
    'is out of order',
    [...steps.slice(0, 2), ...steps.slice(3, 4), ...steps.slice(2, 3), ...steps.slice(4)],
    'MODIFIED a with 2 (version 13) came after 15: twice, or out of order',
  ],
  ['ends too early', steps.slice(0, -1), 'it ended at version 17, before the last write'],
  [
    'tells of another value',
    steps.map((step) => (step.version === 13 ? { ...step, value: 9 } : step) as WatchStep),
    'MODIFIED a with 9 (version 13) has a value that nobody has written',
  ],
  [
    'tells of another version',
    steps.map((step) => (step.version === 13 ? { ...step, version: 14 } : step)),
    'MODIFIED a with 2 (version 14) was acknowledged as 13',
  ],
  [
    'tells of an object as new that is there',
    steps.map((step) => (step.version === 13 ? { ...step, type: 'ADDED' } : step) as WatchStep),
    'ADDED a with 2 (version 13), and it was there already',
  ],
  ['begins anew with an older list', [...steps, begin], 'a list of version 10 came after 19'],
])('a watch that %s is found', (_, watch, message) => {
  expect(findProblems({ ...right, watches: [steps, watch] })).toContainEqual(
    expect.stringContaining(`watch 1: ${message}`),
  )
})

test('a list that has something else than what the watch told up to its version is found', () => {
  const reads = lists.map((one) => (one.version === 16 ? { ...one, objects: { a: 2 } } : one))
  expect(findProblems({ ...right, reads })).toContain(
    'watch 0: a list from s of version 16 has a with 2, and the watch said 3',
  )
})

test.each([
  ['update', again, steps],
  ['create', last, steps],
] as const)('a %s that was refused and happened is found', (_, refused, watch) => {
  const writes = right.writes.map((one) => (one === refused ? { ...one, outcome: 'refused' as const } : one))
  const problems = findProblems({ ...right, writes, watches: [watch] }).join('\n')
  expect(problems).toMatch(/which was refused/)
  expect(problems).toMatch(/version 1[59]\) was refused/)
})

test('a write without an answer may have happened or not, and late', () => {
  const unknown = right.writes.map((one) =>
    one === again ? { ...one, outcome: 'unknown' as const, answer: 'no answer' } : one,
  )
  expect(findProblems({ ...right, writes: unknown })).toEqual([])
  const reads = lists.map((one) => (one.version === 16 ? { ...one, objects: { a: 2 } } : one))
  const late = [...reads, get(38, { a: 3 })]
  expect(
    findProblems({ ...right, writes: unknown, reads: late.filter((one) => one.version !== 16) }),
  ).toEqual([])
  const watch = without(15).map((step) => (step.version === 17 ? { ...step, value: 2 } : step) as WatchStep)
  expect(findProblems({ ...right, writes: unknown, reads, watches: [watch] })).toEqual([])
})

test('a deletion without an answer may have happened or not, but once it was seen it stays so', () => {
  const writes = right.writes.map((one) => (one === deleted ? { ...one, outcome: 'unknown' as const } : one))
  const early = [...lists.slice(0, 4), get(41, { a: 3 }), get(46, {}), ...lists.slice(4)]
  expect(findProblems({ ...right, writes, reads: early })).toEqual([])
  expect(findProblems({ ...right, writes, reads: [...early, get(51, { a: 3 })] }).join('\n')).toContain(
    'has a, which was deleted before',
  )
})

test('a read that began before a write was acknowledged may be older', () => {
  const reads = [...lists, list({ startMs: 21, endMs: 39, version: 14, objects: { a: 2 } })]
  expect(findProblems({ ...right, reads })).toEqual([])
})

test('a watch that has to list again need not tell of what is in between, and is counted', () => {
  const relisted: WatchStep[] = [
    ...steps.slice(0, 2),
    { type: 'LISTED', version: 16, objects: { a: 3 } },
    ...steps.slice(4),
  ]
  const history = { ...right, watches: [relisted] }
  expect(findProblems(history)).toEqual([])
  expect(relistsOf(history)).toBe(1)
  const tooLittle = relisted.map((step) =>
    step.type === 'LISTED' && step.version === 16 ? { ...step, objects: { a: 2 } } : step,
  )
  expect(findProblems({ ...right, watches: [tooLittle] }).join('\n')).toContain('and it had 2')
})

test('of many problems the first are told, and how many more there are', () => {
  const reads = Array.from({ length: 30 }, (_, index) => get(36 + index / 100, { a: 2 }))
  const problems = findProblems({ ...right, reads })
  expect(problems).toHaveLength(21)
  expect(problems.at(-1)).toBe('and 10 more')
})
