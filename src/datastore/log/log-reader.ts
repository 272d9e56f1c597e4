import type { Database } from 'better-sqlite3'

import type { LoggedVersion } from './batch.ts'
import { damagedValue } from './damaged-value.ts'
import type { Link } from './past-reader.ts'
import { type DatabaseOptions, connect } from './schema.ts'
import { type VersionRow, versionColumnCount, versionColumns, versionOf } from './version-row.ts'

/** A version with its value, which is empty for a tombstone. */
export interface LoggedState extends LoggedVersion {
  readonly value: Uint8Array
}

type Row = [...VersionRow, Buffer | null]
type LinkRow = [seq: number, revision: number, version: number, previousSeq: number]

/** One consistent state of the log, read on a connection of its own until it is disposed. */
export class LogReader implements Disposable {
  readonly #database: Database
  readonly #path: string
  #rows: IterableIterator<Row> | undefined

  constructor(options: DatabaseOptions) {
    this.#path = options.path
    this.#database = connect(options)
    this.#database.exec('BEGIN')
    // The first read decides which state all others see.
    this.#database.prepare('SELECT seq FROM version LIMIT 1').get()
  }

  /** What replaces what, in the order of the log. Only one of the two can be read at a time. */
  *links(): Generator<Link> {
    const rows = this.#database
      .prepare('SELECT seq, revision, version, previous_seq FROM version ORDER BY seq')
      .raw()
      .iterate() as IterableIterator<LinkRow>
    try {
      for (const [seq, revision, version, previousSeq] of rows) {
        yield { seq, revision, isTombstone: version === 0, previousSeq }
      }
    } catch (thrown) {
      throw damagedValue(this.#path, thrown)
    }
  }

  /** The next version in the order of the log; undefined behind the last one. */
  next(): LoggedState | undefined {
    const row = this.#nextRow()
    if (row === undefined) return undefined
    return { ...versionOf(row), value: row[versionColumnCount] ?? Buffer.alloc(0) }
  }

  #nextRow(): Row | undefined {
    try {
      this.#rows ??= this.#database
        .prepare(
          `SELECT ${versionColumns}, value
           FROM version LEFT JOIN value ON value.seq = version.seq ORDER BY version.seq`,
        )
        .raw()
        .iterate() as IterableIterator<Row>
      const { done, value } = this.#rows.next()
      return done === true ? undefined : (value as Row)
    } catch (thrown) {
      throw damagedValue(this.#path, thrown)
    }
  }

  [Symbol.dispose](): void {
    this.#rows?.return?.()
    this.#database.close()
  }
}
