/** A compaction waits this long for a range that is still being read; then it ends it. */
const patienceMs = 60_000

interface OpenRange {
  readonly revision: number
  readonly interrupt: () => void
  readonly openedMs: number
}

/**
 * The ranges whose values are read part by part, as their clients take them. Until the last part is read, the
 * values of a range must stay on disk: what is removed waits for those that read before the compacted revision.
 */
export class OpenRanges {
  readonly #ranges = new Set<OpenRange>()

  /** Returns what closes the range. `interrupt` has to close it, too: it is called for one that takes too long. */
  open(revision: number, interrupt: () => void): () => void {
    const range = { revision, interrupt, openedMs: performance.now() }
    this.#ranges.add(range)
    return () => {
      this.#ranges.delete(range)
    }
  }

  /** Whether a range reads before a revision. Those that have done so for too long are ended. */
  isOpenBefore(revision: number): boolean {
    const earlier = [...this.#ranges].filter((range) => range.revision < revision)
    const overdueMs = performance.now() - patienceMs
    for (const range of earlier) if (range.openedMs < overdueMs) range.interrupt()
    return earlier.some((range) => this.#ranges.has(range))
  }
}
