import Database from 'better-sqlite3'

import { AppError } from '../../base/errors.ts'
import type { DatabaseFile } from './inspect.ts'

/** A row of kine's table: one state of one key, whose id is its revision. */
export interface KineRow {
  readonly id: number
  readonly name: Buffer
  readonly isCreate: boolean
  readonly isDelete: boolean
  /** 0 in the rows that create or delete. */
  readonly createRevision: number
  /** kine has no leases: the seconds that the key has to live, or 0. */
  readonly ttlSeconds: number
  readonly value: Buffer
}

type RawRow = [id: number, name: Buffer, number, number, number | null, number | null, Buffer | null]

/** A database of kine 0.9 and later, such as k3s has: pkg/drivers/sqlite/sqlite.go. Read in one transaction. */
export class KineDatabase implements Disposable {
  readonly #database: Database.Database

  constructor({ path, nativeBinding }: DatabaseFile) {
    try {
      const native = nativeBinding === undefined ? {} : { nativeBinding }
      this.#database = new Database(path, { ...native, readonly: true, fileMustExist: true })
    } catch (cause) {
      throw unreadable(path, cause)
    }
    try {
      this.#database.exec('BEGIN')
      const table = this.#database.prepare("SELECT count(*) FROM pragma_table_info('kine')").pluck().get()
      if (table === 0) throw new Error('it has no table kine')
      const finding = this.#database.pragma('quick_check(1)', { simple: true }) as string
      if (finding !== 'ok') throw new Error(`it is damaged: ${finding}`)
    } catch (cause) {
      this.#database.close()
      throw unreadable(path, cause)
    }
  }

  /** The revision that kine's clients saw last. */
  get revision(): number {
    return this.#database.prepare('SELECT coalesce(max(id), 0) FROM kine').pluck().get() as number
  }

  /** 0 when nothing was ever compacted. pkg/drivers/generic/generic.go, CompactRevSQL. */
  get compactedRevision(): number {
    return this.#database
      .prepare("SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key'")
      .pluck()
      .get() as number
  }

  /** In the order of their revisions. */
  *rows(): Generator<KineRow> {
    const rows = this.#database
      .prepare(
        `SELECT id, CAST(name AS BLOB), coalesce(created, 0), coalesce(deleted, 0), create_revision, lease,
                CAST(value AS BLOB) FROM kine ORDER BY id`,
      )
      .raw()
      .iterate() as IterableIterator<RawRow>
    for (const [id, name, created, deleted, createRevision, lease, value] of rows) {
      yield {
        ...{ id, name, isCreate: created !== 0, isDelete: deleted !== 0 },
        createRevision: createRevision ?? 0,
        ttlSeconds: Math.max(0, lease ?? 0),
        value: value ?? Buffer.alloc(0),
      }
    }
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }
}

function unreadable(path: string, cause: unknown): AppError {
  return new AppError(
    `cannot read kine's database ${path}`,
    {
      code: 'KINE_FILE',
      path,
      remedy: 'name the file of k3s, server/db/state.db in its data directory, with its -wal beside it',
    },
    { cause },
  )
}
