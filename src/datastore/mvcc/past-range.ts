import { MvccError } from './errors.ts'
import type { LoggedVersion } from '../log/log.ts'
import type { PastReader } from '../log/past-reader.ts'
import { limitOf } from './key-range.ts'
import { type RangeMatch, type RangeSource, arrange, countAt, findKeys, mostKeys } from './range.ts'
import type { RangeRequest } from './requests.ts'
import { Version } from './version.ts'

/** Versions of the log that one step looks at, about a millisecond of SQLite's time; and how many of a key it goes back. */
const stepVersions = 5000
const stepBack = 200

function oldestInMemory(newest: Version | undefined): Version | undefined {
  let oldest = newest
  while (oldest?.previous !== undefined) oldest = oldest.previous
  return oldest
}

/** What a log says of a version that is no key's newest any more. */
export function pastVersion(logged: LoggedVersion, previous?: Version): Version {
  return new Version({ ...logged, previous })
}

/**
 * A range at a revision before the floor. What a key was then is its newest state, if it has not changed since; else what its
 * first change since has replaced. Memory knows the one, and the changes after the floor; the log, step by step, the changes
 * up to the floor. All of it is of the moment at which it was begun, since nothing of the past changes but by compaction,
 * which has to wait.
 */
export class PastRange {
  readonly #source: RangeSource
  readonly #past: PastReader
  readonly #request: RangeRequest
  readonly #found: Version[]
  /** How many of them memory has. */
  readonly #known: number
  readonly #ownLimit: number
  readonly #keys: { readonly key: string; end: string | undefined }
  /** The seqs of what was written up to the revision, and up to the floor. */
  readonly #writtenThrough: number
  readonly #floorSeq: number
  readonly #revision: number
  #after: number
  #count: number
  /** Of the state of a single key that is looked at next; 0 when that leads nowhere. */
  #nextSeq = 0

  constructor(options: {
    source: RangeSource
    past: PastReader
    request: RangeRequest
    revision: number
    /** How many versions that memory has not may be found. */
    ownLimit: number
  }) {
    const { source, past, request, revision } = options
    this.#ownLimit = options.ownLimit
    this.#source = source
    this.#past = past
    this.#request = request
    const { floor } = source.history
    this.#found = request.countOnly ? [] : findKeys(source, request, revision)
    this.#known = this.#found.length
    this.#keys = { key: request.key, end: limitOf(request) }
    this.#cut()
    this.#count = this.#needsCount ? countAt(source, request, floor) : 0
    this.#writtenThrough = past.seqThrough(revision)
    this.#floorSeq = past.seqThrough(floor)
    this.#after = this.#writtenThrough
    this.#revision = revision
    if (request.end === '' && !request.countOnly && this.#found.length === 0) {
      this.#nextSeq = oldestInMemory(source.index.get(request.key))?.seq ?? 0
    }
  }

  /** Goes on for one step; returns whether there is more to do. */
  step(): boolean {
    return this.#nextSeq > 0 ? this.#stepBack() : this.#stepForward()
  }

  /** From the newest state of a key to the one before it, and so on: until the key was created, that is the shorter way. */
  #stepBack(): boolean {
    for (let count = 0; count < stepBack; count++) {
      const logged = this.#past.version(this.#nextSeq)
      if (logged !== undefined && logged.revision <= this.#revision) {
        if (logged.version > 0) this.#found.push(pastVersion(logged))
        return false
      }
      // It was created after the revision, or is not on disk yet: what was deleted before, only the changes tell.
      this.#nextSeq = logged?.previousSeq ?? 0
      if (this.#nextSeq === 0) return true
    }
    return true
  }

  #stepForward(): boolean {
    const span = { after: this.#after, through: Math.min(this.#after + stepVersions, this.#floorSeq) }
    if (this.#needsCount) {
      const { key } = this.#request
      this.#count -= this.#past.countChange({ key, end: limitOf(this.#request) }, span)
    }
    if (!this.#request.countOnly) {
      for (const logged of this.#past.replaced(this.#keys, this.#writtenThrough, span)) {
        this.#found.push(pastVersion(logged))
      }
      this.#cut()
      if (this.#found.length - this.#known > this.#ownLimit) throw new MvccError('too-many-keys')
    }
    this.#after = span.through
    return this.#after < this.#floorSeq
  }

  /** To be called when no step is left. */
  result(): RangeMatch {
    if (this.#request.countOnly) return { versions: [], more: false, count: this.#count }
    const found = this.#found.sort((one, other) => (one.key < other.key ? -1 : 1))
    return arrange(this.#source, this.#request, {
      found,
      count: this.#needsCount ? this.#count : found.length,
    })
  }

  get #needsCount(): boolean {
    const { countOnly, needsCount } = this.#request
    return countOnly || (needsCount && Number.isFinite(mostKeys(this.#request)))
  }

  /** Drops what is behind the keys that are looked for, and looks there no more. */
  #cut(): void {
    const most = mostKeys(this.#request)
    if (this.#found.length <= most) return
    this.#found.sort((one, other) => (one.key < other.key ? -1 : 1))
    this.#found.length = most + 1
    this.#keys.end = `${(this.#found.at(-1) as Version).key}\0`
  }
}
