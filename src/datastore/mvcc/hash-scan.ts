import type { LogReader, LoggedState } from '../log/log-reader.ts'
import { MvccError } from './errors.ts'
import { everyKeyEnd } from './key-range.ts'
import type { Store } from './store.ts'
import { versionAt } from './version.ts'

/** Requests have their turn after this long; the clock is looked at after so many versions. */
const sliceMs = 1
const clockEvery = 8

export type { LoggedState } from '../log/log-reader.ts'

/**
 * The versions that etcd's HashKV is made of, in slices between which requests are served: those up to a
 * revision; of those up to the compacted revision only what is still a key's newest state.
 * etcd: storage/mvcc/hash.go.
 */
export class HashScan {
  readonly revision: number
  readonly compactedRevision: number
  readonly #store: Store
  /** Of the versions up to the compacted revision, those count that are their keys' newest at this one. */
  readonly #keptRevision: number
  readonly #reader: LogReader
  #next: LoggedState | undefined

  /** `revision` 0 means the newest. */
  constructor({
    store,
    revision,
    openReader,
  }: {
    store: Store
    revision: number
    openReader: () => LogReader
  }) {
    if (revision > 0 && revision < store.compactedRevision) throw new MvccError('compacted')
    if (revision > store.revision) throw new MvccError('future-revision')
    this.revision = revision > 0 ? revision : store.revision
    this.compactedRevision = store.compactedRevision
    // Where no key is left, etcd takes what the compaction has left.
    const isEmpty = store.count({ key: '', end: everyKeyEnd }, this.revision) === 0
    this.#keptRevision = isEmpty ? this.compactedRevision : this.revision
    this.#store = store
    this.#reader = openReader()
    // The first read decides which state of the database all others see.
    this.#next = this.#reader.next()
  }

  /** Goes on for one slice; returns whether there is more. Fails when a compaction has overtaken it. */
  slice(visit: (state: LoggedState) => void): boolean {
    const endMs = performance.now() + sliceMs
    for (let seen = 1; ; seen++) {
      const state = this.#next
      if (state === undefined || state.revision > this.revision) return false
      if (this.#counts(state)) visit(state)
      this.#next = this.#reader.next()
      if (seen % clockEvery === 0 && performance.now() > endMs) return true
    }
  }

  close(): void {
    this.#reader[Symbol.dispose]()
  }

  #counts({ key, seq, revision, version }: LoggedState): boolean {
    if (revision > this.compactedRevision) return true
    if (version === 0) return false
    if (this.#store.compactedRevision > this.#keptRevision) throw new MvccError('compacted')
    const newest = this.#store.index.get(key)
    return newest !== undefined && versionAt(newest, this.#keptRevision)?.seq === seq
  }
}
