import { expect, test } from 'vitest'
import type { History, Read, Write } from '../../soak/history.ts'
import { formatReport, pausesOf } from '../../soak/report.ts'

function writeAt(endMs: number, outcome: Write['outcome'] = 'done'): Write {
  const answer = outcome === 'done' ? '201' : 'no answer'
  return { kind: 'create', name: 'a', value: 1, server: 's', startMs: endMs - 1, endMs, outcome, answer }
}

function readAt(endMs: number): Read {
  return { server: 's', startMs: endMs - 1, endMs, objects: {} }
}

const history: History = {
  writes: [500, 1000, 1500, 4000, 4500].map((ms) => writeAt(ms)).concat(writeAt(2000, 'unknown')),
  reads: [1000, 2000, 4400].map(readAt),
  unansweredReads: [{ startMs: 1, endMs: 2 }],
  watches: [[{ type: 'LISTED', version: 1, objects: {} }]],
  resumed: 3,
  last: 'a',
}

test('the longest time without an answer is that of its period, to its very ends', () => {
  expect(pausesOf(history, { title: '', startMs: 1000, endMs: 4500 })).toEqual({
    ...{ writeMs: 2500, readMs: 2400, unknown: 1 },
  })
  expect(pausesOf(history, { title: '', startMs: 5000, endMs: 7000 })).toEqual({
    ...{ writeMs: 2000, readMs: 2000, unknown: 0 },
  })
})

test('a report has counts, and a row for each period', () => {
  expect(
    formatReport(history, [{ title: 'etcd is killed', startMs: 1000, endMs: 4500, recoveryMs: 700 }]),
  ).toBe(
    [
      '5 writes were acknowledged, 0 refused, and 1 got no answer; 3 reads were answered, and 1 were not; 1 watches told of 0 events, went on 3 times and began anew 0 times',
      ' no write  no read    ready  unknown  while',
      '    2.5 s    2.4 s    0.7 s        1  etcd is killed',
    ].join('\n'),
  )
})
