import type { PastReader } from '../log/past-reader.ts'
import { versionBytes } from './history.ts'

/** Versions that are read at a time. */
const step = 5000

/** What a start loads. */
interface LiveState {
  /** Of the versions that were live at the floor, ascending. */
  readonly liveSeqs: readonly number[]
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
  const liveSeqs: number[] = []
  const replaced = new Set<number>()
  let floor = compacted
  let afterSeq: number | undefined
  let bytes = 0
  let last = { seq: Number.MAX_SAFE_INTEGER, revision: Number.POSITIVE_INFINITY }
  for (;;) {
    const links = past.linksBefore(last.seq, step)
    for (const link of links) {
      const isNewRevision = link.revision !== last.revision
      if (afterSeq === undefined && isNewRevision && (link.revision <= compacted || bytes > historyBytes)) {
        floor = Math.max(compacted, link.revision)
        afterSeq = link.seq
      }
      last = link
      bytes += versionBytes + link.keyBytes
      if (afterSeq === undefined) continue
      if (!replaced.delete(link.seq) && !link.isTombstone) liveSeqs.push(link.seq)
      if (link.previousSeq > 0) replaced.add(link.previousSeq)
    }
    if (links.length < step) break
  }
  return { liveSeqs: liveSeqs.reverse(), afterSeq: afterSeq ?? 0, floor }
}
