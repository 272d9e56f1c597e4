/** The revision is noted this often within the time, and within the size, that history is kept: etcd's compactor does the same. */
const notesPerPeriod = 10
/** More history than this goes before its time: a start has to read all of it. */
const most = { versions: 5_000_000, bytes: 2 * 1024 ** 3 } as const

/** What is compacted. */
interface Compactable {
  readonly store: {
    readonly revision: number
    readonly compactedRevision: number
    /** The seq of the newest version: how many there ever were. */
    readonly seq: number
  }
  /** How many bytes of versions were appended since the start. */
  readonly appendedBytes: number
  compact(revision: number): void
}

/** Where the store was at a time. */
interface Note {
  readonly atMs: number
  readonly revision: number
  readonly seq: number
  readonly bytes: number
}

/** Keeps the notes over a restart. */
interface NoteFile {
  read(): string | undefined
  write(text: string): void
}

interface RetentionOptions {
  readonly engine: Compactable
  readonly periodMs: number
  readonly file: NoteFile
  readonly limits?: { readonly versions: number; readonly bytes: number }
  /** Milliseconds that never go back, and those of the wall clock, by which notes are kept. */
  readonly now?: () => number
  readonly wallNow?: () => number
}

/**
 * Keeps the history of a time, as far as it is not too large, and compacts what is older unless somebody has done it:
 * kube-apiserver compacts every five minutes, most others never. etcd: server/etcdserver/api/v3compactor/periodic.go, of
 * which this is the part that needs no other members; but what was noted before a restart counts after it.
 */
export class Retention {
  readonly #options: Required<RetentionOptions>
  /** Bytes that the notes of earlier runs have counted. */
  readonly #earlierBytes: number
  #notes: Note[]
  #timer: NodeJS.Timeout | undefined

  constructor(options: RetentionOptions) {
    this.#options = { limits: most, now: () => performance.now(), wallNow: Date.now, ...options }
    this.#notes = this.#readNotes()
    this.#earlierBytes = this.#notes.at(-1)?.bytes ?? 0
  }

  start(): void {
    this.note()
    this.#timer = setInterval(() => this.note(), this.#options.periodMs / notesPerPeriod).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Something was written. */
  published(): void {
    const { limits, engine } = this.#options
    const last = this.#notes.at(-1)
    if (this.#timer === undefined || last === undefined) return
    const isMuch =
      engine.store.seq - last.seq > limits.versions / notesPerPeriod ||
      this.#bytes - last.bytes > limits.bytes / notesPerPeriod
    if (isMuch) this.note()
  }

  /** Notes where the store is, and compacts at the newest note that is old enough, or has too much behind it. */
  note(): void {
    const { engine, limits, periodMs } = this.#options
    const { store } = engine
    const now = { atMs: this.#options.now(), revision: store.revision, seq: store.seq, bytes: this.#bytes }
    const isNews = now.revision !== this.#notes.at(-1)?.revision
    this.#notes.push(now)
    const old = this.#notes.findLastIndex(
      ({ atMs, seq, bytes }) =>
        atMs <= now.atMs - periodMs || seq <= now.seq - limits.versions || bytes <= now.bytes - limits.bytes,
    )
    const [note] = this.#notes.splice(0, old + 1).slice(-1)
    if (isNews || note !== undefined) this.#writeNotes()
    if (note === undefined) return
    const { revision } = note
    if (revision > store.compactedRevision && revision > 1) engine.compact(revision)
  }

  get #bytes(): number {
    return this.#earlierBytes + this.#options.engine.appendedBytes
  }

  #readNotes(): Note[] {
    const { file, now, wallNow, engine } = this.#options
    const [nowMs, wallMs] = [now(), wallNow()]
    return (
      parsed(file.read())
        // A wall clock that went back makes them no younger than they are.
        .map(([atMs, revision, seq, bytes]) => ({
          ...{ atMs: nowMs - Math.max(0, wallMs - atMs), revision, seq, bytes },
        }))
        .filter(({ revision }) => revision <= engine.store.revision)
    )
  }

  #writeNotes(): void {
    const { file, now, wallNow } = this.#options
    const offsetMs = wallNow() - now()
    const noted = this.#notes.map(({ atMs, revision, seq, bytes }) => [
      ...[Math.round(atMs + offsetMs), revision, seq, bytes],
    ])
    file.write(JSON.stringify(noted))
  }
}

/** Notes as they are kept; what cannot be read is as good as none. */
function parsed(text = '[]'): (readonly [atMs: number, revision: number, seq: number, bytes: number])[] {
  try {
    return JSON.parse(text)
  } catch {
    return []
  }
}
