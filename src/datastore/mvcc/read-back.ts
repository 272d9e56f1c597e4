import { type PastReader, gluedKeyBytes } from '../log/past-reader.ts'
import { versionBytes } from './history.ts'
import type { KeyPart } from './key-arena.ts'
import { LiveVersions } from './live-versions.ts'

/** Versions that are read at a time. */
const step = 1000

/** What a start loads. */
interface LiveState {
  /** What was live at the floor. */
  readonly live: LiveVersions
  /** The seq of the newest version up to the floor. */
  readonly afterSeq: number
  readonly floor: number
}

/**
 * Reads the log from its end: first the history that there is room for, then what nothing behind it has replaced. That takes
 * a number for each version, and memory for each live key.
 */
export function readBack(
  past: PastReader,
  { compacted, historyBytes }: { compacted: number; historyBytes: number },
): LiveState {
  const live = new LiveVersions()
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
      if (afterSeq === undefined) continue
      if (!replaced.delete(seq) && columns.version[row] !== 0) {
        const isGlued = keyBytes <= gluedKeyBytes
        live.add(columns, row, isGlued ? { memory: columns.keys, start, end } : longKey(past, seq))
      }
      const previousSeq = columns.previousSeq[row] as number
      if (previousSeq > 0) replaced.add(previousSeq)
    }
    if (columns.seq.length < step) break
  }
  return { live, afterSeq: afterSeq ?? 0, floor }
}

function longKey(past: PastReader, seq: number): KeyPart {
  const memory = Buffer.from(past.version(seq)?.key ?? '', 'latin1')
  return { memory, start: 0, end: memory.length }
}
