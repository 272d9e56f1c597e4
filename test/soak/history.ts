/*
 * What a client of several API servers did and saw while they failed. Each name is created once, changed by its writer alone, and
 * deleted once; each value is written once. So of every object all states are known, but for writes that got no answer.
 */

/** done: acknowledged. refused: it did not happen. unknown: no answer, or one that leaves it open. */
export type Outcome = 'done' | 'refused' | 'unknown'

/** Milliseconds since 1970. */
interface Span {
  readonly startMs: number
  readonly endMs: number
}

export interface Write extends Span {
  readonly kind: 'create' | 'update' | 'delete'
  readonly name: string
  /** Of a deletion: the last one that was there. */
  readonly value: number
  readonly server: string
  readonly outcome: Outcome
  /** HTTP status, or why there is none. */
  readonly answer: string
  /** The resourceVersion, of what is done and no deletion. */
  readonly version?: number
}

/** Of the newest state: nothing was said of a resourceVersion. */
export interface Read extends Span {
  readonly server: string
  /** One object, or all. */
  readonly name?: string
  /** Of a list. */
  readonly version?: number
  /** Values by names. */
  readonly objects: Readonly<Record<string, number>>
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly name: string
  readonly value: number
  readonly version: number
}

/** Where a watch begins, and where it has to begin anew, since what is in between is not kept any more. */
export interface Listing {
  readonly type: 'LISTED'
  readonly version: number
  readonly objects: Readonly<Record<string, number>>
}

export type WatchStep = WatchEvent | Listing

export interface History {
  readonly writes: readonly Write[]
  readonly reads: readonly Read[]
  /** Reads that got no answer. */
  readonly unansweredReads: readonly Span[]
  /** What each watcher got, over all of its connections. */
  readonly watches: readonly (readonly WatchStep[])[]
  /** How often watchers went on from where they were, at another server or the same. */
  readonly resumed: number
  /** Written when all was over: each watch has to come to it. */
  readonly last: string
}
