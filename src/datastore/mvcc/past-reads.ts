import { MvccError } from './errors.ts'
import type { OpenRanges } from './open-ranges.ts'
import type { PastRange } from './past-range.ts'
import type { RangeRequest, RangeResult, TxnRequest } from './requests.ts'
import type { Store } from './store.ts'
import type { PastResults } from './transaction.ts'
import { Work } from './work.ts'

/** How long reads of the past go on before requests have their turn. */
const sliceMs = 4
/** As many are under way together: each keeps what it has found. */
const readsTogether = 4

/** Something that takes many steps. */
interface Stepwise {
  /** Goes on for one step; returns whether there is more to do. */
  step(): boolean
}

/** Who waits for one. One of the others is called in the end. */
interface PastReader {
  /** False when nobody waits any more. */
  readonly isWanted: () => boolean
  readonly done: () => void
  readonly failed: (thrown: unknown) => void
  readonly givenUp: () => void
}

/** Who waits for what is read of the past. */
interface ReaderOfPast<Result> extends Pick<PastReader, 'isWanted' | 'failed'> {
  readonly done: (result: Result) => void
  readonly givenUp?: () => void
}

/**
 * Reads what is not in memory. Those that are under way have each their step in turn, and requests have their turn after each
 * slice of time.
 */
export class PastReads {
  readonly #store: Store
  readonly #openRanges: OpenRanges
  readonly #reads = new Map<Stepwise, PastReader>()
  /** Those that nobody has begun. */
  #waiting: { begin: () => Stepwise; reader: PastReader }[] = []
  #isScheduled = false

  constructor(store: Store, openRanges: OpenRanges) {
    this.#store = store
    this.#openRanges = openRanges
  }

  /**
   * Reads a range of the past, while other requests have their turn, and calls `done` with what `range` would have returned;
   * what it has found stays on disk during that call.
   */
  range(request: RangeRequest, reader: ReaderOfPast<RangeResult>): void {
    this.#store.refuseRevision(request.revision)
    let read: PastRange | undefined
    let isInterrupted = false
    const close = this.#openRanges.open(request.revision, () => {
      isInterrupted = true
      close()
      reader.failed(new MvccError('compacted'))
    })
    this.#add(() => (read = this.#store.rangeOfPast(request)), {
      isWanted: () => !isInterrupted && reader.isWanted(),
      done: () => {
        reader.done(this.#store.resultOfPast(request, (read as PastRange).result()))
        close()
      },
      failed: (thrown) => {
        close()
        reader.failed(thrown)
      },
      givenUp: () => {
        close()
        reader.givenUp?.()
      },
    })
  }

  /** Whether a transaction may read what is not in memory: that has to be read before. */
  isReadBy(request: TxnRequest): boolean {
    return this.#missingOf(request, new Map()) !== undefined
  }

  /** Reads what a transaction may read of the past. What it has found stays on disk during the call of `done`. */
  readFor(request: TxnRequest, reader: ReaderOfPast<PastResults>): void {
    const results = new Map<RangeRequest, RangeResult>()
    const work = new Work(this.#store.limits.changedKeys)
    const close = this.#openRanges.open(oldestRead(request), () => undefined)
    const next = (): void => {
      const missing = this.#missingOf(request, results)
      if (missing === undefined) {
        reader.done(results)
        return close()
      }
      this.range(missing, {
        isWanted: reader.isWanted,
        done: (result) => {
          work.spend(result.versions.length)
          results.set(missing, result)
          next()
        },
        failed: (thrown) => {
          close()
          reader.failed(thrown)
        },
        givenUp: close,
      })
    }
    try {
      next()
    } catch (thrown) {
      close()
      throw thrown
    }
  }

  #missingOf(
    { success, failure }: Pick<TxnRequest, 'success' | 'failure'>,
    known: PastResults,
  ): RangeRequest | undefined {
    for (const operation of [...success, ...failure]) {
      if (operation.kind === 'txn') {
        const found = this.#missingOf(operation, known)
        if (found !== undefined) return found
      } else if (
        operation.kind === 'range' &&
        !this.#store.isInMemory(operation.revision) &&
        !known.has(operation)
      ) {
        return operation
      }
    }
    return undefined
  }

  #add(begin: () => Stepwise, reader: PastReader): void {
    this.#waiting.push({ begin, reader })
    this.#schedule()
  }

  #beginWaiting(): void {
    while (this.#reads.size < readsTogether) {
      const next = this.#waiting.shift()
      if (next === undefined) return
      const { begin, reader } = next
      try {
        if (reader.isWanted()) this.#reads.set(begin(), reader)
        else reader.givenUp()
      } catch (thrown) {
        reader.failed(thrown)
      }
    }
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#beginWaiting()
      this.#slice()
      if (this.#reads.size + this.#waiting.length > 0) this.#schedule()
    })
  }

  #slice(): void {
    const endMs = performance.now() + sliceMs
    for (const [read, reader] of this.#reads) {
      // Who is not done goes to the end of the line.
      this.#reads.delete(read)
      try {
        if (!reader.isWanted()) reader.givenUp()
        else if (read.step()) this.#reads.set(read, reader)
        else reader.done()
      } catch (thrown) {
        reader.failed(thrown)
      }
      if (performance.now() >= endMs) return
    }
  }
}

/** The oldest revision that a transaction may read at; infinite when it reads the newest states alone. */
export function oldestRead({ success, failure }: Pick<TxnRequest, 'success' | 'failure'>): number {
  let oldest = Number.POSITIVE_INFINITY
  for (const operation of [...success, ...failure]) {
    if (operation.kind === 'txn') oldest = Math.min(oldest, oldestRead(operation))
    else if (operation.kind === 'range' && operation.revision > 0)
      oldest = Math.min(oldest, operation.revision)
  }
  return oldest
}
