import type { LogReader, LoggedState } from '../log/log-reader.ts'
import type { Link } from '../log/past-reader.ts'
import { MvccError } from './errors.ts'
import type { Store } from './store.ts'

/** Requests have their turn after this long; the clock is looked at after so many versions. */
const sliceMs = 1
const clockEvery = 8

export type { LoggedState } from '../log/log-reader.ts'

/**
 * The versions that etcd's HashKV is made of, in slices between which requests are served: those up to a
 * revision; of those up to the compacted revision only what is a key's newest state at the revision that was asked for.
 * etcd: storage/mvcc/hash.go.
 */
export class HashScan {
  readonly revision: number
  readonly compactedRevision: number
  readonly #store: Store
  readonly #reader: LogReader
  /** Of the versions up to the compacted revision, those count that are their keys' newest at this one. */
  #keptRevision: number
  /** Finds those first. */
  #kept: KeptVersions
  #links: Iterator<Link> | undefined
  #isAhead = false
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
    this.#keptRevision = this.revision
    this.#kept = new KeptVersions(this.compactedRevision)
    this.#store = store
    this.#reader = openReader()
    this.#links = this.#reader.links()
  }

  /** Goes on for one slice; returns whether there is more. Fails when a compaction has overtaken it. */
  slice(visit: (state: LoggedState) => void): boolean {
    const endMs = performance.now() + sliceMs
    for (let seen = 1; ; seen++) {
      if (this.#links !== undefined) this.#takeLink(this.#links)
      else if (!this.#takeState(visit)) return false
      if (seen % clockEvery === 0 && performance.now() > endMs) return true
    }
  }

  close(): void {
    this.#links?.return?.()
    this.#reader[Symbol.dispose]()
  }

  #takeLink(links: Iterator<Link>): void {
    const { value: link, done } = links.next()
    if (done !== true && (link as Link).revision <= this.#keptRevision) return this.#kept.add(link as Link)
    links.return?.()
    this.#links = undefined
    if (!this.#kept.isEmpty || this.#keptRevision <= this.compactedRevision) return
    // Where no key is left, etcd takes what the compaction has left.
    this.#keptRevision = this.compactedRevision
    this.#kept = new KeptVersions(this.compactedRevision)
    this.#links = this.#reader.links()
  }

  #takeState(visit: (state: LoggedState) => void): boolean {
    if (!this.#isAhead) this.#next = this.#reader.next()
    this.#isAhead = true
    const state = this.#next
    if (state === undefined || state.revision > this.revision) return false
    if (this.#counts(state)) visit(state)
    this.#next = this.#reader.next()
    return true
  }

  #counts({ seq, revision, version }: LoggedState): boolean {
    if (revision > this.compactedRevision) return true
    if (version === 0) return false
    if (this.#store.compactedRevision > this.#keptRevision) throw new MvccError('compacted')
    return this.#kept.has(seq)
  }
}

/** Which versions up to the compacted revision nothing has replaced, of those that were added in the order of the log. */
class KeptVersions {
  readonly #compactedRevision: number
  readonly #seqs = new Set<number>()
  /** How many keys have a version after the compacted revision for their newest. */
  #later = 0

  constructor(compactedRevision: number) {
    this.#compactedRevision = compactedRevision
  }

  add({ seq, revision, isTombstone, previousSeq }: Link): void {
    const isLater = revision > this.#compactedRevision
    const wasKept = previousSeq > 0 && this.#seqs.delete(previousSeq)
    if (isLater && previousSeq > 0 && !wasKept) this.#later--
    if (isTombstone) return
    if (isLater) this.#later++
    else this.#seqs.add(seq)
  }

  has(seq: number): boolean {
    return this.#seqs.has(seq)
  }

  get isEmpty(): boolean {
    return this.#seqs.size === 0 && this.#later === 0
  }
}
