import type { KeyIndex } from './key-index.ts'
import { type Compare, compareResults, compareTargets } from './requests.ts'
import { type Version, noBytes } from './version.ts'
import type { Work } from './work.ts'

/** What a value costs that is read to be compared, in keys that are looked at. */
const valueCost = 16

/** A comparison is made on the newest state of its keys. */
interface CompareSource {
  readonly index: KeyIndex
  readonly valueOf: (version: Version) => Uint8Array
}

/**
 * etcd: etcdserver/txn/txn.go, applyCompare. Every key of a range must match. Where there is no key a
 * zero KeyValue is compared; but a value never matches what is not there, not even with "not equal".
 */
export function holds(source: CompareSource, compare: Compare, work: Pick<Work, 'spend'>): boolean {
  if (compare.end === '') {
    const newest = source.index.get(compare.key)
    if (newest === undefined || newest.isTombstone) return holdsForNothing(compare)
    return matches(source, compare, newest)
  }
  let count = 0
  let allMatch = true
  const cost = compare.target === compareTargets.value ? valueCost : 1
  source.index.walk(compare, (newest) => {
    work.spend(cost)
    if (newest.isTombstone) return true
    count++
    allMatch = matches(source, compare, newest)
    return allMatch
  })
  return count === 0 ? holdsForNothing(compare) : allMatch
}

function holdsForNothing(compare: Compare): boolean {
  if (compare.target === compareTargets.value) return false
  return judge(
    compare,
    compare.target === compareTargets.lease ? order(0n, compare.lease) : order(0, compare.number),
  )
}

function matches(source: CompareSource, compare: Compare, version: Version): boolean {
  switch (compare.target) {
    case compareTargets.version:
      return judge(compare, order(version.version, compare.number))
    case compareTargets.create:
      return judge(compare, order(version.createRevision, compare.number))
    case compareTargets.mod:
      return judge(compare, order(version.revision, compare.number))
    case compareTargets.value:
      return judge(compare, Buffer.compare(source.valueOf(version) ?? noBytes, compare.value))
    case compareTargets.lease:
      return judge(compare, order(version.lease, compare.lease))
    default:
      return judge(compare, 0)
  }
}

function judge({ result }: Compare, found: number): boolean {
  switch (result) {
    case compareResults.equal:
      return found === 0
    case compareResults.notEqual:
      return found !== 0
    case compareResults.greater:
      return found > 0
    case compareResults.less:
      return found < 0
    default:
      return true
  }
}

function order<Value extends number | bigint>(one: Value, other: Value): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}
