import { assert } from '../../base/errors.ts'
import type { Log, LoggedVersion } from '../log/log.ts'
import { MvccError } from './errors.ts'
import { History } from './history.ts'
import { KeyIndex } from './key-index.ts'
import type { KeyRange } from './key-range.ts'
import { type RangeMatch, countAt, readRange } from './range.ts'
import type { RangeRequest, RangeResult } from './requests.ts'
import { ValueCache } from './value-cache.ts'
import { Version, noBytes } from './version.ts'

/** Values of this many bytes are kept in memory; a small cluster has fewer. */
const valueCacheBytes = 40 * 1024 * 1024
/** A fresh store is at this revision: etcd's storage/mvcc/kvstore.go, NewStore. */
const firstRevision = 1
/** The compacted revision of a store that was never compacted. */
const neverCompacted = -1

/** What the store tells of its changes. */
export interface StoreListener {
  /** Versions that became visible, in the order of the log, with the store's new revision. */
  published(versions: readonly Version[], revision: number): void
}

/**
 * The state of the keys, over the log. Writes change the index at once, at the head; readers see only
 * what is on disk, up to the published revision:
 *
 *     compacted <= ... history ... <= published <= ... on the way to the disk ... <= head
 *
 * A failed commit takes the head back to the published revision (`reload`).
 */
export class Store {
  readonly index = new KeyIndex()
  readonly history = new History()
  readonly #log: Log
  readonly #values = new ValueCache(valueCacheBytes)
  #listener: StoreListener | undefined
  #head = firstRevision
  #published = firstRevision
  #compacted = neverCompacted
  #seq = 0
  /** How many versions the revision that is being written has. */
  #sub = 0
  /** What a compaction that was interrupted has left, as found when the log was read. */
  #superseded: number[] = []

  constructor(log: Log) {
    this.#log = log
    this.reload()
  }

  listen(listener: StoreListener): void {
    this.#listener = listener
  }

  /** The revision that readers see. */
  get revision(): number {
    return this.#published
  }

  /** The revision of the newest write, which may not be on disk yet. */
  get head(): number {
    return this.#head
  }

  get compactedRevision(): number {
    return this.#compacted
  }

  /** Builds the state anew from the log. Versions that the compacted revision supersedes are removed. */
  reload(): void {
    this.index.clear()
    this.history.clear()
    this.#values.clear()
    const compacted = this.#log.readMeta('compact_revision')
    this.#compacted = compacted === undefined ? neverCompacted : Number(compacted)
    this.#head = Math.max(firstRevision, this.#compacted)
    this.#superseded = []
    for (const row of this.#log.readVersions()) {
      const previous = this.#load(row)
      if (previous !== undefined && row.revision <= this.#compacted) this.#superseded.push(previous.seq)
      if (row.version === 0 && row.revision < this.#compacted) this.#superseded.push(row.seq)
    }
    this.#published = this.#head
  }

  #load(row: LoggedVersion): Version | undefined {
    const previous = this.index.get(row.key)
    const isKept = row.revision > this.#compacted
    const version = new Version({ ...row, previous: isKept ? previous : undefined, value: undefined })
    this.#seq = row.seq
    this.#head = Math.max(this.#head, row.revision)
    if (version.isTombstone && row.revision < this.#compacted) {
      this.index.remove(row.key)
      return previous
    }
    this.index.set(version)
    if (row.revision >= this.#compacted) this.history.push(version)
    return previous
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
    if (version.value !== undefined) return version.value
    const value = this.#log.readValue(version)
    this.#values.offer(version, value)
    return value
  }

  /** The values of many versions, in their order; views as of `valueOf`. */
  readonly valuesOf = (versions: readonly Version[]): Uint8Array[] => {
    if (versions.length === 1) return versions.map(this.valueOf)
    const missing: number[] = []
    const values = versions.map(({ value, valueBytes }, place) => {
      if (value === undefined && valueBytes > 0) missing.push(place)
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
      key,
      seq: ++this.#seq,
      revision,
      createRevision: live?.createRevision ?? revision,
      version: (live?.version ?? 0) + 1,
      lease,
      valueBytes: value.length,
      previous: newest,
      value: undefined,
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
      value: undefined,
    })
  }

  #append(value: Uint8Array, fields: ConstructorParameters<typeof Version>[0]): Version {
    const version = new Version(fields)
    this.#log.appendVersion({ ...fields, sub: this.#sub++ }, value)
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
   * Removes what the compacted revision supersedes, from up to `limit` of the oldest changes; returns
   * false when nothing was left. etcd: storage/mvcc/key_index.go, compact.
   */
  compactStep(limit: number): boolean {
    if (this.#superseded.length > 0) {
      this.#log.appendForget(this.#superseded.splice(0, limit))
      return true
    }
    const compacted = this.#compacted
    const versions = this.history.takeBefore(compacted, limit)
    const atCompacted = versions.length === 0 ? this.#versionsAt(compacted) : []
    const superseded: number[] = []
    for (const version of [...versions, ...atCompacted]) {
      if (version.previous !== undefined) {
        superseded.push(version.previous.seq)
        this.#values.drop(version.previous)
      }
      version.previous = undefined
      if (!version.isTombstone || version.revision === compacted) continue
      superseded.push(version.seq)
      if (this.index.get(version.key) === version) this.index.remove(version.key)
    }
    this.#log.appendForget(superseded)
    return versions.length > 0
  }

  /** The versions of one revision stay in the history, which starts with the compacted one. */
  #versionsAt(revision: number): Version[] {
    const versions: Version[] = []
    for (let place = this.history.placeOf(revision); ; place++) {
      const version = this.history.at(place)
      if (version === undefined || version.revision > revision) return versions
      versions.push(version)
    }
  }
}
