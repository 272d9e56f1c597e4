import { describe, expect, test } from 'vitest'
import { latenciesBetween, quantile, readHistograms, slowestOf } from '../../../bench/scale/latencies.ts'

const inf = Number.POSITIVE_INFINITY

/** A histogram with the edges 0.1, 1 and 30, and how many were within each. */
function histogram(
  labels: string,
  [first, second, third, all]: readonly [number, number, number, number],
): string {
  const line = (le: string, count: number) =>
    `apiserver_request_duration_seconds_bucket{component="apiserver",${labels},le="${le}"} ${count}`
  return [line('0.1', first), line('1', second), line('30', third), line('+Inf', all)].join('\n')
}

describe('quantile', () => {
  test('is within the bucket in which it lies', () => {
    const buckets = new Map([
      [0.1, 90],
      [1, 100],
      [inf, 100],
    ])
    expect(quantile(buckets, 0.9)).toBeCloseTo(0.1)
    expect(quantile(buckets, 0.95)).toBeCloseTo(0.55)
    expect(quantile(buckets, 0.99)).toBeCloseTo(0.91)
  })

  test('is at the last edge where it lies beyond it', () => {
    expect(
      quantile(
        new Map([
          [inf, 100],
          [1, 98],
          [0.1, 90],
        ]),
        0.99,
      ),
    ).toBe(1)
  })
})

describe('the calls of a window', () => {
  const put = 'verb="PUT",group="",resource="leases",subresource="",scope="resource"'
  const before = readHistograms(
    ['# HELP apiserver_request_duration_seconds x', histogram(put, [10, 10, 10, 1000])].join('\n'),
  )

  test('are counted from its beginning, and versions of a resource together', () => {
    const after = readHistograms(
      [
        histogram(`${put},version="v1"`, [110, 110, 110, 1100]),
        histogram(`${put},version="v1beta1"`, [50, 100, 100, 100]),
        'apiserver_request_duration_seconds_count{verb="PUT",resource="leases"} 1200',
      ].join('\n'),
    )
    expect(latenciesBetween(before, after)).toEqual([
      { level: 'mutating', call: 'PUT leases', count: 200, p99Seconds: expect.closeTo(0.964, 2) },
    ])
  })

  test('are told apart by what they are about, and what lasts is left out', () => {
    const labels = (verb: string, resource: string, scope: string, subresource = '') =>
      `verb="${verb}",group="",resource="${resource}",subresource="${subresource}",scope="${scope}"`
    const after = readHistograms(
      [
        histogram(labels('LIST', 'pods', 'cluster'), [0, 0, 1, 1]),
        histogram(labels('LIST', 'secrets', 'resource'), [0, 200, 200, 200]),
        histogram(labels('GET', 'nodes', 'resource'), [200, 200, 200, 200]),
        histogram(labels('POST', 'pods', 'resource', 'binding'), [200, 200, 200, 200]),
        histogram(labels('WATCH', 'pods', 'cluster'), [0, 0, 0, 200]),
        histogram(labels('CONNECT', 'pods', 'resource', 'exec'), [0, 0, 0, 200]),
        histogram(labels('GET', 'pods', 'resource', 'log'), [0, 0, 0, 200]),
        histogram(labels('GET', '', ''), [0, 0, 0, 200]),
      ].join('\n'),
    )
    const found = latenciesBetween(new Map(), after)
    expect(found.map(({ level, call }) => `${level}: ${call}`)).toEqual([
      'list: LIST pods of a cluster',
      'single: LIST secrets',
      'single: GET nodes',
      'mutating: POST pods/binding',
    ])
    expect(slowestOf('single', found)?.call).toBe('LIST secrets')
  })

  test('are too few to have a 99th of 100, unless they are lists', () => {
    const after = readHistograms(
      [
        histogram('verb="POST",resource="pods",scope="resource"', [0, 0, 99, 99]),
        histogram('verb="LIST",resource="pods",scope="namespace"', [0, 0, 1, 1]),
      ].join('\n'),
    )
    const found = latenciesBetween(new Map(), after)
    expect(slowestOf('mutating', found)).toBeUndefined()
    expect(slowestOf('list', found)?.call).toBe('LIST pods of a namespace')
  })

  test('did not happen where nothing was counted', () => {
    expect(latenciesBetween(before, before)).toEqual([])
  })
})
