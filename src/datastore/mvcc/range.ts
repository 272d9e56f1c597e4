import { MvccError } from './errors.ts'
import type { KeyIndex } from './key-index.ts'
import type { History } from './history.ts'
import { type KeyRange, contains } from './key-range.ts'
import { type RangeRequest, sortOrders, sortTargets } from './requests.ts'
import { type Version, versionAt } from './version.ts'

/** Where ranges are read: the index with its history, and the revision of the index's newest state. */
export interface RangeSource {
  readonly index: KeyIndex
  readonly history: History
  readonly valueOf: (version: Version) => Uint8Array
}

/** The values that a range is sorted by are in memory together. */
const sortedValuesLimitBytes = 512 * 1024 * 1024

/** Of a range that finds nothing, in versions that are looked at. */
const leastReadCost = 10

export interface RangeMatch {
  readonly versions: Version[]
  readonly more: boolean
  readonly count: number
}

/**
 * What a range request gives at a revision that was checked. etcd: etcdserver/txn/range.go,
 * executeRange. The count ignores limit and filters. The limit cuts the keys before they are sorted,
 * unless an order or a filter was asked for: so a target without an order sorts what the limit left.
 */
export function readRange(source: RangeSource, request: RangeRequest, revision: number): RangeMatch {
  if (request.countOnly) return { versions: [], more: false, count: countAt(source, request, revision) }
  if (request.end === '') return readKey(source, request, revision)
  const found = findKeys(source, request, revision)
  const isCut = found.length > mostKeys(request)
  const count = isCut && request.needsCount ? countAt(source, request, revision) : found.length
  return arrange(source, request, { found, count })
}

/** How many keys a range looks for, of which the last only says that there are more. */
export function mostKeys(request: RangeRequest): number {
  return request.limit > 0 && cutsFirst(request) ? request.limit : Number.POSITIVE_INFINITY
}

/** What the keys of a range were at a revision, as far as memory has it: in order, one more than it looks for at most. */
export function findKeys(source: RangeSource, request: RangeRequest, revision: number): Version[] {
  const most = mostKeys(request)
  const found: Version[] = []
  source.index.walk(request, (newest) => {
    const version = versionAt(newest, revision)
    if (version !== undefined) found.push(version)
    return found.length <= most
  })
  return found
}

/** Filters, sorts and cuts what was found, as the request asks. */
export function arrange(
  source: Pick<RangeSource, 'valueOf'>,
  request: RangeRequest,
  { found, count }: { found: Version[]; count: number },
): RangeMatch {
  const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY
  const passed = hasFilters(request) ? found.filter((version) => passes(request, version)) : found
  const versions = sorted(source, request, passed)
  const more = versions.length > limit
  if (more) versions.length = limit
  return { versions, more, count }
}

/** About how many versions a range looks at, at a revision that memory has. */
export function readCost({ index, history }: RangeSource, request: RangeRequest, newest: number): number {
  const isOfPast = request.revision > 0 && request.revision < newest
  const changes = isOfPast ? history.end - history.placeOf(request.revision + 1) : 0
  if (request.end === '') {
    const version = index.get(request.key)
    if (version === undefined) return leastReadCost
    const isOlder = version.createRevision <= request.revision
    return leastReadCost + (isOlder ? Math.min(version.version, changes) : changes)
  }
  if (request.countOnly) return leastReadCost + changes
  const live = index.countLive(request)
  const tombstones = index.countAll(request) - live
  return leastReadCost + Math.min(live, mostKeys(request)) + tombstones + changes
}

function cutsFirst(request: RangeRequest): boolean {
  return isDefaultOrder(request) && !hasFilters(request)
}

/** How many keys of the range existed at the revision: the count now without what was changed since. */
export function countAt(source: RangeSource, range: KeyRange, revision: number): number {
  const { index, history } = source
  const first = history.placeOf(revision + 1)
  let count = index.countLive(range)
  for (let place = first; ; place++) {
    const version = history.at(place)
    if (version === undefined) return count
    if (!contains(range, version.key)) continue
    const existed = version.previous !== undefined && !version.previous.isTombstone
    if (existed === version.isTombstone) count += existed ? 1 : -1
  }
}

function readKey(source: RangeSource, request: RangeRequest, revision: number): RangeMatch {
  const newest = source.index.get(request.key)
  const version = newest === undefined ? undefined : versionAt(newest, revision)
  if (version === undefined) return { versions: [], more: false, count: 0 }
  return { versions: passes(request, version) ? [version] : [], more: false, count: 1 }
}

/** etcd: etcdserver/txn/range.go, IsDefaultOrdering. Keys come ascending by themselves. */
export function isDefaultOrder({ sortOrder, sortTarget }: RangeRequest): boolean {
  return sortOrder === sortOrders.none || (sortTarget === sortTargets.key && sortOrder === sortOrders.ascend)
}

export function hasFilters(request: RangeRequest): boolean {
  return (
    request.minModRevision !== 0 ||
    request.maxModRevision !== 0 ||
    request.minCreateRevision !== 0 ||
    request.maxCreateRevision !== 0
  )
}

function passes(request: RangeRequest, { revision, createRevision }: Version): boolean {
  return (
    (request.maxModRevision === 0 || revision <= request.maxModRevision) &&
    (request.minModRevision === 0 || revision >= request.minModRevision) &&
    (request.maxCreateRevision === 0 || createRevision <= request.maxCreateRevision) &&
    (request.minCreateRevision === 0 || createRevision >= request.minCreateRevision)
  )
}

function sorted(source: Pick<RangeSource, 'valueOf'>, request: RangeRequest, versions: Version[]): Version[] {
  const direction = request.sortOrder === sortOrders.descend ? -1 : 1
  if (request.sortTarget === sortTargets.key) return direction === 1 ? versions : versions.reverse()
  if (request.sortTarget === sortTargets.value) {
    const bytes = versions.reduce((sum, { valueBytes }) => sum + valueBytes, 0)
    if (bytes > sortedValuesLimitBytes) throw new MvccError('too-many-keys')
    const values = new Map(versions.map((version) => [version, source.valueOf(version)]))
    const value = (version: Version): Uint8Array => values.get(version) as Uint8Array
    return versions.sort((one, other) => direction * Buffer.compare(value(one), value(other)))
  }
  const field = numberFields[request.sortTarget] ?? 'revision'
  return versions.sort((one, other) => direction * (one[field] - other[field]))
}

const numberFields: Readonly<Record<number, 'version' | 'createRevision' | 'revision'>> = {
  [sortTargets.version]: 'version',
  [sortTargets.create]: 'createRevision',
  [sortTargets.mod]: 'revision',
}
