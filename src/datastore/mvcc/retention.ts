/** The revision is noted this often within the time that history is kept: etcd's compactor does the same. */
const notesPerPeriod = 10

/** What is compacted. */
interface Compactable {
  readonly store: { readonly revision: number; readonly compactedRevision: number }
  compact(revision: number): void
}

/**
 * Keeps the history of a time, and compacts what is older unless somebody has done it: kube-apiserver compacts
 * every five minutes, most others never. etcd: server/etcdserver/api/v3compactor/periodic.go, of which this is the
 * part that needs no other members.
 */
export class Retention {
  readonly #engine: Compactable
  readonly #periodMs: number
  readonly #now: () => number
  #notes: { atMs: number; revision: number }[] = []
  #timer: NodeJS.Timeout | undefined

  /** `now` gives milliseconds that never go back. */
  constructor({
    engine,
    periodMs,
    now = () => performance.now(),
  }: {
    engine: Compactable
    periodMs: number
    now?: () => number
  }) {
    this.#engine = engine
    this.#periodMs = periodMs
    this.#now = now
  }

  start(): void {
    this.note()
    this.#timer = setInterval(() => this.note(), this.#periodMs / notesPerPeriod).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Notes the revision, and compacts at the newest one that is old enough. */
  note(): void {
    const atMs = this.#now()
    const { store } = this.#engine
    this.#notes.push({ atMs, revision: store.revision })
    const old = this.#notes.findLastIndex((note) => note.atMs <= atMs - this.#periodMs)
    if (old === -1) return
    const [{ revision } = { revision: 0 }] = this.#notes.splice(0, old + 1).slice(-1)
    if (revision > store.compactedRevision && revision > 1) this.#engine.compact(revision)
  }
}
