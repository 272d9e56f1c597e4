import type { Database } from 'better-sqlite3'

import type { LoggedVersion } from './batch.ts'
import { damagedValue } from './damaged-value.ts'
import { type DatabaseOptions, connect } from './schema.ts'
import { type VersionRow, versionColumns, versionOf } from './version-row.ts'

/** A version with its value, which is empty for a tombstone. */
export interface LoggedState extends LoggedVersion {
  readonly value: Uint8Array
}

type Row = [...VersionRow, Buffer | null]

/** One consistent state of the log, read on a connection of its own until it is disposed. */
export class LogReader implements Disposable {
  readonly #database: Database
  readonly #path: string
  readonly #rows: IterableIterator<Row>

  constructor(options: DatabaseOptions) {
    this.#path = options.path
    this.#database = connect(options)
    this.#rows = this.#database
      .prepare(
        `SELECT ${versionColumns}, value
         FROM version LEFT JOIN value ON value.seq = version.seq ORDER BY version.seq`,
      )
      .raw()
      .iterate() as IterableIterator<Row>
  }

  /** The next version in the order of the log; undefined behind the last one. */
  next(): LoggedState | undefined {
    const row = this.#nextRow()
    if (row === undefined) return undefined
    return { ...versionOf(row), value: row[8] ?? Buffer.alloc(0) }
  }

  #nextRow(): Row | undefined {
    try {
      const { done, value } = this.#rows.next()
      return done === true ? undefined : (value as Row)
    } catch (thrown) {
      throw damagedValue(this.#path, thrown)
    }
  }

  [Symbol.dispose](): void {
    this.#rows.return?.()
    this.#database.close()
  }
}
