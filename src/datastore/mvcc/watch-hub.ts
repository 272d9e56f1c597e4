import { assert } from '../../base/errors.ts'
import { type KeyRange, contains } from './key-range.ts'
import type { Store } from './store.ts'
import type { Version } from './version.ts'

/** Versions looked at in one step of a watcher that catches up; others have their turn between two. */
const catchUpStep = 2000
/** How long watchers catch up before requests have their turn. */
const catchUpSliceMs = 4
/** The same of watchers that are told what has just been written: kube-apiserver's need far less. */
const publishSliceMs = 20
/** The clock is looked at once for so many of them. */
const watchersBetweenLooks = 8

/** Of all clients together; a watcher takes some 1.5 kB beside its keys. */
const watchersLimit = 200_000
const keyLimitBytes = 64 * 1024 * 1024

/** Where a watcher's events go. */
export interface WatchSink {
  /** No more is taken until `Watcher.resume` is called: the client does not keep up. */
  readonly isFull: boolean
  /**
   * Takes all events that the watcher has up to `revision`, or as many as there is room for; returns how
   * many it took. Whole revisions, and at least one.
   */
  events(watcher: Watcher, versions: readonly Version[], revision: number): number
  /** What the watcher wants was compacted; it is removed. */
  compacted(watcher: Watcher, compactRevision: number): void
  /** `events` has thrown; the watcher is removed. */
  failed(watcher: Watcher, thrown: unknown): void
}

export interface WatchRequest extends KeyRange {
  readonly id: bigint
  /** 0 means from now on. */
  readonly startRevision: number
  readonly ignoresPuts: boolean
  readonly ignoresDeletes: boolean
}

/**
 *     behind -> caught-up -> behind ...
 *
 * A watcher that has seen everything gets its events as they are published. One that starts in the
 * past, or whose sink was full, is behind: it reads the history, at its sink's pace, and nothing is
 * buffered for it.
 */
export class Watcher {
  readonly request: WatchRequest
  readonly sink: WatchSink
  isBehind = false
  isRemoved = false
  /** The first revision that it has not seen. */
  nextRevision: number

  constructor(request: WatchRequest, sink: WatchSink, nextRevision: number) {
    this.request = request
    this.sink = sink
    this.nextRevision = nextRevision
  }

  wants(version: Version): boolean {
    return !(version.isTombstone ? this.request.ignoresDeletes : this.request.ignoresPuts)
  }
}

interface Group {
  readonly range: KeyRange
  readonly watchers: Set<Watcher>
  /** Collects while versions are published, once for all of its watchers. */
  pending: Version[]
}

/** Brings published versions to those who watch their keys. */
export class WatchHub {
  readonly #store: Store
  /** Watchers of one key, by the key. */
  readonly #keys = new Map<string, Group>()
  /** Watchers of ranges, by key and end: nearly all watchers share theirs with others. */
  readonly #ranges = new Map<string, Group>()
  readonly #behind = new Set<Watcher>()
  /** Of those that are behind, the ones whose sinks have room, in the order of their turns. */
  readonly #ready = new Set<Watcher>()
  #watchers = 0
  #keyBytes = 0
  #isCatchUpScheduled = false

  constructor(store: Store) {
    this.#store = store
  }

  /** How many watchers there are, and how many of them have not been sent everything. */
  get watchers(): { all: number; behind: number } {
    return { all: this.#watchers, behind: this.#behind.size }
  }

  /** Whether there are as many watchers, or as long keys of theirs, as memory is meant for. */
  get isFull(): boolean {
    return this.#watchers >= watchersLimit || this.#keyBytes >= keyLimitBytes
  }

  /** Adds a watcher; the events of the past that it asks for follow in later turns. */
  add(request: WatchRequest, sink: WatchSink): Watcher {
    const { revision } = this.#store
    const { startRevision } = request
    const watcher = new Watcher(request, sink, startRevision > 0 ? startRevision : revision + 1)
    const group = this.#groupOf(request)
    group.watchers.add(watcher)
    this.#watchers++
    this.#keyBytes += request.key.length + request.end.length
    if (watcher.nextRevision <= revision) this.#fallBehind(watcher)
    return watcher
  }

  remove(watcher: Watcher): void {
    if (watcher.isRemoved) return
    watcher.isRemoved = true
    this.#watchers--
    this.#keyBytes -= watcher.request.key.length + watcher.request.end.length
    this.#behind.delete(watcher)
    this.#ready.delete(watcher)
    const groups = watcher.request.end === '' ? this.#keys : this.#ranges
    const name = groupName(watcher.request)
    const group = groups.get(name)
    group?.watchers.delete(watcher)
    if (group?.watchers.size === 0) groups.delete(name)
  }

  /** Whether the watcher has been sent everything up to the store's revision, and waits for no later one. */
  isSynced(watcher: Watcher): boolean {
    return !watcher.isBehind && watcher.request.startRevision <= this.#store.revision
  }

  /** The watcher's sink has room again. */
  resume(watcher: Watcher): void {
    if (watcher.isBehind && !watcher.isRemoved) this.#getReady(watcher)
  }

  publish(versions: readonly Version[], revision: number): void {
    const touched: Group[] = []
    for (const version of versions) {
      const group = this.#keys.get(version.key)
      if (group !== undefined) collect(group, version, touched)
      for (const range of this.#ranges.values()) {
        if (contains(range.range, version.key)) collect(range, version, touched)
      }
    }
    // Those for whom there is no time in this turn catch up in others.
    const endMs = performance.now() + publishSliceMs
    let count = 0
    let isLate = false
    for (const group of touched) {
      const { pending } = group
      group.pending = []
      for (const watcher of group.watchers) {
        if (++count % watchersBetweenLooks === 0) isLate ||= performance.now() >= endMs
        if (!watcher.isBehind) this.#deliver(watcher, pending, { revision, isLate })
      }
    }
  }

  #deliver(
    watcher: Watcher,
    pending: readonly Version[],
    { revision, isLate }: { revision: number; isLate: boolean },
  ): void {
    if (isLate || watcher.sink.isFull) {
      watcher.nextRevision = Math.max(watcher.nextRevision, (pending[0] as Version).revision)
      if (watcher.nextRevision <= revision) this.#fallBehind(watcher)
      return
    }
    const versions = wantedOf(watcher, pending)
    if (versions.length === 0) return
    watcher.nextRevision = revision + 1
    this.#send(watcher, versions, revision)
  }

  #send(watcher: Watcher, versions: readonly Version[], revision: number): void {
    let taken: number
    try {
      taken = watcher.sink.events(watcher, versions, revision)
    } catch (thrown) {
      // A value that cannot be read concerns this watcher alone.
      this.remove(watcher)
      watcher.sink.failed(watcher, thrown)
      return
    }
    const left = versions[taken]
    if (left === undefined) return
    watcher.nextRevision = left.revision
    this.#fallBehind(watcher)
  }

  #groupOf(range: KeyRange): Group {
    const groups = range.end === '' ? this.#keys : this.#ranges
    const name = groupName(range)
    let group = groups.get(name)
    if (group === undefined)
      groups.set(
        name,
        (group = { range: { key: range.key, end: range.end }, watchers: new Set(), pending: [] }),
      )
    return group
  }

  #fallBehind(watcher: Watcher): void {
    watcher.isBehind = true
    this.#behind.add(watcher)
    if (!watcher.sink.isFull) this.#getReady(watcher)
  }

  #getReady(watcher: Watcher): void {
    this.#ready.add(watcher)
    this.#scheduleCatchUp()
  }

  #scheduleCatchUp(): void {
    if (this.#isCatchUpScheduled) return
    this.#isCatchUpScheduled = true
    setImmediate(() => {
      this.#isCatchUpScheduled = false
      const endMs = performance.now() + catchUpSliceMs
      for (const watcher of this.#ready) {
        // Who is not done goes to the end of the line.
        this.#ready.delete(watcher)
        if (!watcher.sink.isFull && !this.#catchUp(watcher)) this.#ready.add(watcher)
        if (performance.now() >= endMs) break
      }
      if (this.#ready.size > 0) this.#scheduleCatchUp()
    })
  }

  /** Sends some of what a watcher has missed; false when there is more and its sink has room. */
  #catchUp(watcher: Watcher): boolean {
    const { revision, compactedRevision, history } = this.#store
    if (watcher.nextRevision < compactedRevision) {
      this.remove(watcher)
      watcher.sink.compacted(watcher, compactedRevision)
      return true
    }
    let missed: Missed
    try {
      const isRecent = watcher.nextRevision > history.floor
      missed = isRecent ? this.#missedRecently(watcher, watcher.nextRevision) : this.#missedLongAgo(watcher)
    } catch (thrown) {
      // The log cannot be read there.
      this.remove(watcher)
      watcher.sink.failed(watcher, thrown)
      return true
    }
    const { versions, last } = missed
    assert(last >= watcher.nextRevision - 1, `watcher at ${watcher.nextRevision} went back to ${last}`)
    watcher.nextRevision = last + 1
    if (last === revision) {
      watcher.isBehind = false
      this.#behind.delete(watcher)
    }
    if (versions.length > 0) this.#send(watcher, versions, revision)
    return !watcher.isBehind || watcher.sink.isFull
  }

  /** What a watcher wants of the next versions in memory, and the revision up to which it has seen them then. */
  #missedRecently(watcher: Watcher, fromRevision: number): Missed {
    const { revision, history } = this.#store
    const versions: Version[] = []
    let seen = 0
    let last = 0
    for (let place = history.placeOf(fromRevision); ; place++) {
      const version = history.at(place)
      if (version === undefined || version.revision > revision) return { versions, last: revision }
      // The events of a revision are never split.
      if (seen >= catchUpStep && version.revision !== last) return { versions, last }
      last = version.revision
      seen++
      if (isFor(watcher, version)) versions.push(version)
    }
  }

  /** The same of what the log alone has, and of what follows in memory. */
  #missedLongAgo(watcher: Watcher): Missed {
    const { versions, lastRevision } = this.#store.pastChanges(watcher.nextRevision)
    const missed = versions.filter(
      (version) => version.revision >= watcher.nextRevision && isFor(watcher, version),
    )
    if (lastRevision < this.#store.history.floor) return { versions: missed, last: lastRevision }
    const recent = this.#missedRecently(watcher, lastRevision + 1)
    return { versions: [...missed, ...recent.versions], last: recent.last }
  }
}

/** What a watcher has missed, up to a revision. */
interface Missed {
  readonly versions: Version[]
  readonly last: number
}

function isFor(watcher: Watcher, version: Version): boolean {
  return contains(watcher.request, version.key) && watcher.wants(version)
}

function collect(group: Group, version: Version, touched: Group[]): void {
  if (group.pending.length === 0) touched.push(group)
  group.pending.push(version)
}

/** Nearly all want all of it. */
function wantedOf(watcher: Watcher, pending: readonly Version[]): readonly Version[] {
  const isWanted = (version: Version): boolean =>
    version.revision >= watcher.nextRevision && watcher.wants(version)
  return pending.every(isWanted) ? pending : pending.filter(isWanted)
}

function groupName({ key, end }: KeyRange): string {
  return end === '' ? key : `${key.length}:${key}${end}`
}
