import type { PastReader } from '../log/past-reader.ts'
import { pastVersion } from './past-range.ts'
import type { Version } from './version.ts'

/** Versions that are read at a time; with the last revision's they can be more. */
const chunkVersions = 500
/** Chunks that are kept for the next watcher: those that fell behind together catch up together. */
const keptChunks = 8
/** Of all of them together, unless one is larger: a revision may have changed every key. */
const keptVersions = 20 * chunkVersions

/** Every version of the revisions from the first to the last. */
export interface Chunk {
  readonly firstRevision: number
  readonly lastRevision: number
  readonly versions: readonly Version[]
}

/** The changes that the log alone knows, for watchers that catch up. */
export class PastChanges {
  readonly #past: PastReader
  /** What was used last comes last. */
  #chunks: Chunk[] = []
  /** The compaction that the chunks know of: what it removes must not be asked for. */
  #compacted = Number.NEGATIVE_INFINITY

  constructor(past: PastReader) {
    this.#past = past
  }

  /** A chunk with the revision in it; none of its versions is after the floor. */
  from(revision: number, { floor, compacted }: { floor: number; compacted: number }): Chunk {
    if (compacted !== this.#compacted) this.#chunks = []
    this.#compacted = compacted
    const at = this.#chunks.findIndex(
      ({ firstRevision, lastRevision }) => firstRevision <= revision && revision <= lastRevision,
    )
    const [chunk] = at === -1 ? [this.#read(revision, floor)] : this.#chunks.splice(at, 1)
    this.#chunks.push(chunk as Chunk)
    while (this.#chunks.length > 1 && this.#isTooMuch()) this.#chunks.shift()
    return chunk as Chunk
  }

  #isTooMuch(): boolean {
    const versions = this.#chunks.reduce((sum, chunk) => sum + chunk.versions.length, 0)
    return this.#chunks.length > keptChunks || versions > keptVersions
  }

  #read(firstRevision: number, floor: number): Chunk {
    const versions: Version[] = []
    let lastRevision = floor
    for (let seq = this.#past.seqThrough(firstRevision - 1) + 1; ; ) {
      const changes = this.#past.changes(seq, chunkVersions)
      for (const { version, previous } of changes) {
        if (version.revision > floor) return { firstRevision, lastRevision: floor, versions }
        // The events of a revision are never split.
        if (versions.length >= chunkVersions && version.revision !== lastRevision) {
          return { firstRevision, lastRevision, versions }
        }
        lastRevision = version.revision
        seq = version.seq + 1
        // What was replaced at the compacted revision itself may be gone.
        const isKept = previous !== undefined && version.revision > this.#compacted
        versions.push(pastVersion(version, isKept ? pastVersion(previous) : undefined))
      }
      if (changes.length < chunkVersions) return { firstRevision, lastRevision: floor, versions }
    }
  }
}
