import { type PastReader, gluedKeyBytes } from '../log/past-reader.ts'
import { versionBytes } from './history.ts'
import type { KeyPart } from './key-arena.ts'
import { GatheredVersions } from './gathered-versions.ts'

/** Versions that are read at a time. */
const step = 1000

/** What a start loads. */
interface ReadState extends Disposable {
  /** What was live at the floor. */
  readonly live: GatheredVersions
  /** What came after it, the newest first. */
  readonly recent: GatheredVersions
  /** The seq of the newest version up to the floor. */
  readonly afterSeq: number
  readonly floor: number
}

/**
 * Reads the log from its end: first the history that there is room for, then what nothing behind it has replaced. That takes
 * a number for each version, and memory for each that is loaded.
 */
export function readBack(
  past: PastReader,
  { compacted, historyBytes }: { compacted: number; historyBytes: number },
): ReadState {
  const live = new GatheredVersions()
  const recent = new GatheredVersions()
  const replaced = new Set<number>()
  let floor = compacted
  let afterSeq: number | undefined
  let bytes = 0
  let last = { seq: Number.MAX_SAFE_INTEGER, revision: Number.POSITIVE_INFINITY }
  for (;;) {
    const columns = past.columnsBefore(last.seq, step)
    let end = 0
    for (const [row, seq] of columns.seq.entries()) {
      const revision = columns.revision[row] as number
      const keyBytes = columns.keyBytes[row] as number
      const start = end
      if (keyBytes <= gluedKeyBytes) end += keyBytes
      const isNewRevision = revision !== last.revision
      if (afterSeq === undefined && isNewRevision && (revision <= compacted || bytes > historyBytes)) {
        floor = Math.max(compacted, revision)
        afterSeq = seq
      }
      last = { seq, revision }
      bytes += versionBytes + keyBytes
      const isWanted = afterSeq === undefined || (!replaced.delete(seq) && columns.version[row] !== 0)
      if (isWanted) {
        const key = keyBytes > gluedKeyBytes ? longKey(past, seq) : { memory: columns.keys, start, end }
        const gathered = afterSeq === undefined ? recent : live
        gathered.add(columns, row, key)
      }
      if (afterSeq === undefined) continue
      const previousSeq = columns.previousSeq[row] as number
      if (previousSeq > 0) replaced.add(previousSeq)
    }
    if (columns.seq.length < step) break
  }
  const dispose = (): void => {
    for (const versions of [live, recent]) versions[Symbol.dispose]()
  }
  return { live, recent, afterSeq: afterSeq ?? 0, floor, [Symbol.dispose]: dispose }
}

function longKey(past: PastReader, seq: number): KeyPart {
  const memory = Buffer.from(past.version(seq)?.key ?? '', 'latin1')
  return { memory, start: 0, end: memory.length }
}
