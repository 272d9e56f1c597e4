import type { Database } from 'better-sqlite3'

/** Rows that are read at a time: the same connection writes between two reads. */
const stepRows = 10_000

/** Finds what each version replaces, in the order of the log: it knows the live keys, each with its newest seq. */
export class VersionLinks {
  readonly #live = new Map<string, number>()

  /** Takes the next version of the log; returns the seq of the live state before it, 0 when there was none. */
  seqReplacedBy({ seq, key, version }: { seq: number; key: Uint8Array; version: number }): number {
    const name = Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1')
    const previousSeq = this.#live.get(name) ?? 0
    if (version === 0) this.#live.delete(name)
    else this.#live.set(name, seq)
    return previousSeq
  }
}

/** Links the versions of a database that earlier versions of this program have written. */
export function linkVersions(database: Database): void {
  const links = new VersionLinks()
  const select = database
    .prepare(`SELECT seq, key, version FROM version WHERE seq > ? ORDER BY seq LIMIT ${stepRows}`)
    .raw()
  const update = database.prepare('UPDATE version SET previous_seq = ? WHERE seq = ?')
  for (let last = 0; ; ) {
    const rows = select.all(last) as [seq: number, key: Buffer, version: number][]
    for (const [seq, key, version] of rows) {
      const previousSeq = links.seqReplacedBy({ seq, key, version })
      if (previousSeq !== 0) update.run(previousSeq, seq)
      last = seq
    }
    if (rows.length < stepRows) return
  }
}
