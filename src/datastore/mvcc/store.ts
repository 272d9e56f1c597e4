import { AppError, assert } from '../../base/errors.ts'
import type { Log } from '../log/log.ts'
import type { Link } from '../log/past-reader.ts'
import { MvccError } from './errors.ts'
import { History } from './history.ts'
import { KeyIndex } from './key-index.ts'
import type { KeyRange } from './key-range.ts'
import { type Chunk, PastChanges } from './past-changes.ts'
import { readBack } from './read-back.ts'
import { PastRange } from './past-range.ts'
import { type RangeMatch, countAt, readRange } from './range.ts'
import type { RangeRequest, RangeResult } from './requests.ts'
import { ValueCache } from './value-cache.ts'
import { Version, noBytes } from './version.ts'

const defaultLimits: StoreLimits = {
  heapBytes: 2048 * 1024 * 1024,
  valueBytes: () => 40 * 1024 * 1024,
  historyBytes: 128 * 1024 * 1024,
  keyBytes: 1024 * 1024 * 1024,
  readKeys: 16_000_000,
  changedKeys: 1_000_000,
}
/** A fresh store is at this revision: etcd's storage/mvcc/kvstore.go, NewStore. */
const firstRevision = 1
/** The compacted revision of a store that was never compacted. */
const neverCompacted = -1

/** What is kept in memory at most. */
export interface StoreLimits {
  /** The heap as a whole, which ends the process where it is exceeded. */
  readonly heapBytes: number
  /** Recent values, by the number of keys; a small cluster has fewer. */
  readonly valueBytes: (keys: number) => number
  /** Recent versions that are no key's newest any more. */
  readonly historyBytes: number
  /** The live keys: beyond this, no more are taken. */
  readonly keyBytes: number
  /** What one transaction looks at: it is done in one turn, and what it has found is kept to its end. */
  readonly readKeys: number
  /** What one revision changes, which is told to watchers as a whole. */
  readonly changedKeys: number
}

/** What the store tells of its changes. */
interface StoreListener {
  /** Versions that became visible, in the order of the log, with the store's new revision. */
  published(versions: readonly Version[], revision: number): void
}

/**
 * The state of the keys, over the log. Writes change the index at once, at the head; readers see only
 * what is on disk, up to the published revision:
 *
 *     compacted <= ... the log alone ... <= floor <= ... history ... <= published <= ... on the way to the disk ... <= head
 *
 * In memory are the live keys with their newest versions, and the versions after the floor, as many as there is room for. A
 * failed commit takes the head back to the published revision (`rollBack`).
 */
export class Store {
  readonly index = new KeyIndex()
  readonly history = new History()
  readonly #log: Log
  readonly #limits: StoreLimits
  readonly #values: ValueCache
  readonly #pastChanges: PastChanges
  #listener: StoreListener | undefined
  #head = firstRevision
  #published = firstRevision
  #compacted = neverCompacted
  #seq = 0
  /** How many versions the revision that is being written has. */
  #sub = 0
  /** What a compaction supersedes has been removed from the log up to here. */
  #removed = neverCompacted
  /** The one that is under way: what it has looked at, and the revision that it compacts at. */
  #removal: { afterSeq: number; readonly compacted: number } | undefined

  constructor(log: Log, limits: StoreLimits = defaultLimits) {
    this.#log = log
    this.#limits = limits
    this.#values = new ValueCache(() => limits.valueBytes(this.index.size))
    this.#pastChanges = new PastChanges(log.past)
    this.#load()
  }

  listen(listener: StoreListener): void {
    this.#listener = listener
  }

  /** The revision that readers see. */
  get revision(): number {
    return this.#published
  }

  /** The place in the log of the newest version. */
  get seq(): number {
    return this.#seq
  }

  /** The revision of the newest write, which may not be on disk yet. */
  get head(): number {
    return this.#head
  }

  get compactedRevision(): number {
    return this.#compacted
  }

  /** Builds the state from the log: what is live at the floor, then the versions after it. */
  #load(): void {
    this.#readCompacted()
    using state = readBack(this.#log.past, {
      compacted: this.#compacted,
      historyBytes: this.#limits.historyBytes,
    })
    const { live, recent, afterSeq, floor } = state
    if (live.bytesOfIndex > this.#limits.heapBytes) throw tooLarge(live.size, this.#limits.heapBytes)
    this.history.clear(floor)
    this.#head = Math.max(firstRevision, this.#compacted)
    for (const place of live.sorted()) this.index.append(live.packed(place))
    for (let place = recent.size - 1; place >= 0; place--) {
      const version = recent.version(place, this.index.get(recent.key(place)))
      this.index.set(version)
      this.history.push(version)
      this.#seq = version.seq
      this.#head = version.revision
    }
    this.#seq = Math.max(this.#seq, afterSeq)
    this.#head = Math.max(this.#head, floor)
    this.#published = this.#head
  }

  #readCompacted(): void {
    const read = (name: 'compact_revision' | 'removed_revision'): number => {
      const text = this.#log.readMeta(name)
      return text === undefined ? neverCompacted : Number(text)
    }
    this.#compacted = read('compact_revision')
    this.#removed = read('removed_revision')
  }

  /** Takes the head back to what is on disk: what was written since the last commit is lost. */
  rollBack(): void {
    for (const version of this.history.takeAfter(this.#published)) {
      const { previous } = version
      this.#values.drop(version)
      this.#seq = version.seq - 1
      if (previous === undefined || this.#isForgotten(previous)) this.index.remove(version.key)
      else {
        this.index.set(previous)
        if (previous.revision <= this.history.floor) this.index.pack(previous)
      }
    }
    this.#head = this.#published
    this.#sub = 0
    this.#removal = undefined
    this.#readCompacted()
  }

  /** Lets the oldest versions up to a revision, which is on disk, go while there is too little room for all. */
  #trim(throughRevision: number): void {
    const { history } = this
    while (history.bytes > this.#limits.historyBytes && history.oldestRevision <= throughRevision) {
      this.#leaveOldest()
    }
  }

  /** Lets the versions of the oldest revision go: from now on the log alone knows what they have replaced. */
  #leaveOldest(): number {
    const versions = this.history.takeOldest()
    for (const version of versions) {
      if (version.previous !== undefined) this.#values.drop(version.previous)
      version.previous = undefined
      if (!version.isTombstone) this.index.pack(version)
      else if (this.index.get(version.key) === version) this.index.remove(version.key)
    }
    return versions.length
  }

  /** A tombstone that the history has let go is not in the index either. */
  #isForgotten({ isTombstone, revision }: Version): boolean {
    return isTombstone && revision <= this.history.floor
  }

  /** What became durable becomes visible. A commit of leases alone, or of a compaction, brings no new revision. */
  publish(revision: number): void {
    assert(revision >= this.#published, `revision ${revision} published after ${this.#published}`)
    if (revision === this.#published) return
    const versions: Version[] = []
    for (let place = this.history.placeOf(this.#published + 1); ; place++) {
      const version = this.history.at(place)
      if (version === undefined || version.revision > revision) break
      versions.push(version)
    }
    this.#published = revision
    this.#listener?.published(versions, revision)
    this.#trim(revision)
  }

  /** Whether there is room for more live keys: what was taken once can always be loaded again. */
  get hasRoomForKeys(): boolean {
    return this.index.bytes <= this.#limits.keyBytes
  }

  get limits(): StoreLimits {
    return this.#limits
  }

  /** Whether what a revision (0: the newest) shows can be told without the log. */
  isInMemory(revision: number): boolean {
    return revision <= 0 || revision >= this.history.floor || revision < this.#compacted
  }

  /** Throws for a revision that readers may not ask for. */
  refuseRevision(revision: number): void {
    this.#readRevision(revision, this.#published)
  }

  /** Reads what a revision shows that is not in memory, step by step. */
  rangeOfPast(request: RangeRequest): PastRange {
    const revision = this.#readRevision(request.revision, this.#published)
    const ownLimit = this.#limits.changedKeys
    return new PastRange({ source: this, past: this.#log.past, request, revision, ownLimit })
  }

  /** Changes from a revision on that is not after the floor, as many as are read at a time. */
  pastChanges(revision: number): Chunk {
    return this.#pastChanges.from(revision, { floor: this.history.floor, compacted: this.#compacted })
  }

  /** What a read of the past has found, as of `range`. */
  resultOfPast(request: RangeRequest, match: RangeMatch): RangeResult {
    return this.#result(request, match, this.#published)
  }

  /** Reads what readers may see. */
  range(request: RangeRequest): RangeResult {
    const revision = this.#readRevision(request.revision, this.#published)
    return this.#result(request, readRange(this, request, revision), this.#published)
  }

  /** Reads at the head, in a transaction: `revision` is the one that the transaction would write. */
  rangeInTransaction(request: RangeRequest, newest: number): RangeResult {
    const revision = this.#readRevision(request.revision, newest)
    return this.#result(request, readRange(this, request, revision), newest)
  }

  count(range: KeyRange, revision: number): number {
    return countAt(this, range, this.#readRevision(revision, this.#published))
  }

  /** A view that is valid in this turn of the event loop, until something is written. */
  readonly valueOf = (version: Version): Uint8Array => {
    if (version.valueBytes === 0) return noBytes
    const kept = this.#values.get(version)
    if (kept !== undefined) return kept
    const value = this.#log.readValue(version)
    this.#values.offer(version, value)
    return value
  }

  /** The values of many versions, in their order; views as of `valueOf`. */
  readonly valuesOf = (versions: readonly Version[]): Uint8Array[] => {
    if (versions.length === 1) return versions.map(this.valueOf)
    const missing: number[] = []
    const values = versions.map((version, place) => {
      const value = version.valueBytes === 0 ? noBytes : this.#values.get(version)
      if (value === undefined) missing.push(place)
      return value ?? noBytes
    })
    if (missing.length === 0) return values
    const versionAtPlace = (place: number): Version => versions[place] as Version
    // In the order of the log, values of one page of the database are read together.
    missing.sort((one, other) => versionAtPlace(one).seq - versionAtPlace(other).seq)
    const read = this.#log.readValues(missing.map(versionAtPlace))
    for (const [at, place] of missing.entries()) {
      const value = read[at] as Uint8Array
      values[place] = value
      this.#values.offer(versionAtPlace(place), value)
    }
    return values
  }

  /** etcd: storage/mvcc/kvstore_txn.go, rangeKeys. */
  #readRevision(requested: number, newest: number): number {
    if (requested > newest) throw new MvccError('future-revision')
    const revision = requested <= 0 ? newest : requested
    if (revision < this.#compacted) throw new MvccError('compacted')
    return revision
  }

  #result(request: RangeRequest, match: RangeMatch, revision: number): RangeResult {
    return { kind: 'range', revision, keysOnly: request.keysOnly, ...match }
  }

  /** Puts a key at the head's next revision. `value` is copied. */
  put(key: string, value: Uint8Array, lease: bigint): Version {
    const newest = this.index.get(key)
    const live = newest === undefined || newest.isTombstone ? undefined : newest
    const revision = this.#head + 1
    return this.#append(value, {
      // The versions of a key share its name.
      key: newest?.key ?? key,
      seq: ++this.#seq,
      revision,
      createRevision: live?.createRevision ?? revision,
      version: (live?.version ?? 0) + 1,
      lease,
      valueBytes: value.length,
      previous: newest,
    })
  }

  /** Deletes a key, which must exist, at the head's next revision. */
  delete(newest: Version): Version {
    return this.#append(noBytes, {
      key: newest.key,
      seq: ++this.#seq,
      revision: this.#head + 1,
      createRevision: 0,
      version: 0,
      lease: 0n,
      valueBytes: 0,
      previous: newest,
    })
  }

  #append(value: Uint8Array, fields: ConstructorParameters<typeof Version>[0]): Version {
    const version = new Version(fields)
    const { previous } = fields
    const previousSeq = previous === undefined || previous.isTombstone ? 0 : previous.seq
    this.#log.appendVersion({ ...fields, sub: this.#sub++, previousSeq }, value)
    this.index.set(version)
    this.history.push(version)
    if (!version.isTombstone) this.#values.add(version, value, this.#published)
    return version
  }

  /** Whether the transaction that is being written has written anything. */
  get hasChanges(): boolean {
    return this.#sub > 0
  }

  /** Ends the transaction that is being written; returns its revision. */
  endTransaction(): number {
    if (this.#sub > 0) this.#head++
    this.#sub = 0
    this.#log.endTransaction()
    return this.#head
  }

  /** Makes the compacted revision hold, in this turn for all requests, and soon on disk. */
  compact(revision: number): void {
    if (revision <= this.#compacted) throw new MvccError('compacted')
    if (revision > this.#published) throw new MvccError('future-revision')
    this.#compacted = revision
    this.#log.appendMeta('compact_revision', String(revision))
  }

  /**
   * Removes what the compacted revision supersedes, looking at up to about `limit` of the changes since the compaction before;
   * returns false when nothing was left. etcd: storage/mvcc/key_index.go, compact.
   */
  compactStep(limit: number): boolean {
    return this.#leaveCompacted(limit) || this.#removeSuperseded(limit)
  }

  /** In memory. */
  #leaveCompacted(limit: number): boolean {
    let left = 0
    while (left < limit && this.history.oldestRevision <= this.#compacted) left += this.#leaveOldest()
    this.history.raiseFloor(this.#compacted)
    return left > 0
  }

  /** In the log. What a crash has interrupted is done again: that something is not there any more does not matter. */
  #removeSuperseded(limit: number): boolean {
    if (this.#removed >= this.#compacted) return false
    const { past } = this.#log
    this.#removal ??= { afterSeq: past.seqThrough(this.#removed - 1), compacted: this.#compacted }
    const { compacted, afterSeq } = this.#removal
    const links = past.links(afterSeq, limit)
    const superseded: number[] = []
    for (const { seq, revision, isTombstone, previousSeq } of links) {
      if (revision > compacted) break
      this.#removal.afterSeq = seq
      if (previousSeq > 0) superseded.push(previousSeq)
      if (isTombstone && revision < compacted) superseded.push(seq)
    }
    this.#log.appendForget(superseded)
    if (links.length < limit || (links.at(-1) as Link).revision > compacted) {
      this.#removal = undefined
      this.#removed = compacted
      this.#log.appendMeta('removed_revision', String(compacted))
    }
    return true
  }
}

/** A database that came from a larger machine. */
function tooLarge(keys: number, heapBytes: number): AppError {
  return new AppError('cannot open datastore: there is no memory for its keys', {
    code: 'DATASTORE_NO_MEMORY',
    keys,
    heapMegabytes: Math.round(heapBytes / 1e6),
    remedy: 'Give the machine, or the cgroup, more memory: half of it is for this.',
  })
}
