import type { Database, Statement } from 'better-sqlite3'

import type { LoggedVersion } from './batch.ts'
import {
  type VersionRow,
  versionColumnCount,
  versionColumns,
  versionColumnsOf,
  versionOf,
} from './version-row.ts'

/** Keys from `key` on and before `end`, which may be absent. */
interface Keys {
  readonly key: string
  readonly end: string | undefined
}

/** Versions whose seq is in (after, through]. */
interface Span {
  readonly after: number
  readonly through: number
}

/** A version, and the live state that it has replaced, where there was one and it was not removed. */
export interface Change {
  readonly version: LoggedVersion
  readonly previous: LoggedVersion | undefined
}

/** What replaces what. */
export interface Link {
  readonly seq: number
  readonly revision: number
  readonly isTombstone: boolean
  readonly previousSeq: number
}

/** Versions, a list for each of their fields, and their keys, one behind the other. */
export interface VersionColumns {
  readonly seq: readonly number[]
  readonly revision: readonly number[]
  readonly createRevision: readonly number[]
  /** 0 marks a tombstone. */
  readonly version: readonly number[]
  readonly valueBytes: readonly number[]
  readonly previousSeq: readonly number[]
  /** 0, or in decimals. */
  readonly lease: readonly (0 | string)[]
  readonly keyBytes: readonly number[]
  /** Those of at most `gluedKeyBytes`. */
  readonly keys: Buffer
}

/** A longer key is not among those that are read together. */
export const gluedKeyBytes = 1024

const columns = [
  'seq',
  'revision',
  'create_revision',
  'version',
  'value_bytes',
  'previous_seq',
  'CASE lease WHEN 0 THEN 0 ELSE CAST(lease AS TEXT) END',
  'length(key)',
]

type LinkRow = [seq: number, revision: number, version: number, previousSeq: number]
const linkColumns = 'seq, revision, version, previous_seq'

/**
 * Reads the history from the log, where nothing but `seq` is indexed: an index of keys would cost every write more than all
 * the rest of it. The first change of a key after a revision leads to the key's state at that revision (`previous_seq`); so
 * what is read is what has changed since, and never what a database of many years has before that.
 */
export class PastReader {
  /** Runs within the read transaction of the turn, and gives errors their name. */
  readonly #read: <Row>(read: () => Row) => Row
  readonly #bounds: Statement
  readonly #from: Statement
  readonly #version: Statement
  readonly #replaced: Statement
  readonly #countChange: Statement
  readonly #changes: Statement
  readonly #links: Statement
  readonly #columnsBefore: Statement

  constructor(database: Database, read: <Row>(read: () => Row) => Row) {
    this.#read = read
    // Asked for both at once, SQLite reads the whole log.
    this.#bounds = database
      .prepare(
        `SELECT coalesce((SELECT min(seq) FROM version), 0), coalesce((SELECT max(seq) FROM version), 0)`,
      )
      .raw()
    this.#from = database
      .prepare('SELECT seq, revision FROM version WHERE seq >= ? ORDER BY seq LIMIT 1')
      .raw()
    this.#version = database.prepare(`SELECT ${versionColumns} FROM version WHERE seq = ?`).raw()
    const isIn = 'later.seq > ? AND later.seq <= ? AND later.key >= ? AND (? IS NULL OR later.key < ?)'
    this.#replaced = database
      .prepare(
        `SELECT ${versionColumnsOf('earlier')}
         FROM version AS later CROSS JOIN version AS earlier ON earlier.seq = later.previous_seq
         WHERE later.previous_seq BETWEEN 1 AND ? AND ${isIn}`,
      )
      .raw()
    this.#countChange = database
      .prepare(`SELECT coalesce(sum((version = 1) - (version = 0)), 0) FROM version AS later WHERE ${isIn}`)
      .pluck()
    this.#changes = database
      .prepare(
        `SELECT ${versionColumns}, ${versionColumnsOf('earlier')}
         FROM version LEFT JOIN version AS earlier ON earlier.seq = version.previous_seq
         WHERE version.seq >= ? ORDER BY version.seq LIMIT ?`,
      )
      .raw()
    this.#links = database
      .prepare(`SELECT ${linkColumns} FROM version WHERE seq > ? ORDER BY seq LIMIT ?`)
      .raw()
    // A buffer for each key, and an array for each row, would cost three times as much as reading them.
    this.#columnsBefore = database
      .prepare(
        `SELECT ${columns.map((column) => `json_group_array(${column})`).join()},
           CAST(group_concat(CASE WHEN length(key) <= ${gluedKeyBytes} THEN key ELSE '' END, '') AS BLOB)
         FROM (SELECT * FROM version WHERE seq < ? ORDER BY seq DESC LIMIT ?)`,
      )
      .raw()
  }

  /** The greatest seq of a revision or of one before it; 0 when there is none. Both ascend together. */
  seqThrough(revision: number): number {
    const [min, max] = this.#read(() => this.#bounds.get()) as [number, number]
    if (max === 0) return 0
    // The answer is in [low, high].
    let low = min - 1
    let high = max
    while (low < high) {
      const middle = Math.floor((low + high + 1) / 2)
      const [seq, found] = this.#read(() => this.#from.get(middle)) as [number, number]
      if (found <= revision) low = seq
      else high = middle - 1
    }
    return Math.max(0, low)
  }

  /** Undefined when it was removed. */
  version(seq: number): LoggedVersion | undefined {
    const row = this.#read(() => this.#version.get(seq)) as VersionRow | undefined
    return row && versionOf(row)
  }

  /** The states of keys that were replaced or deleted within the span, of those that were written up to `writtenThrough`. */
  replaced(keys: Keys, writtenThrough: number, span: Span): LoggedVersion[] {
    const rows = this.#read(() => this.#replaced.all(writtenThrough, ...bound(keys, span))) as VersionRow[]
    return rows.map(versionOf)
  }

  /** How many more keys there were after the span than before it. */
  countChange(keys: Keys, span: Span): number {
    return this.#read(() => this.#countChange.get(...bound(keys, span))) as number
  }

  /** Up to `limit` versions from a seq on. */
  changes(fromSeq: number, limit: number): Change[] {
    const rows = this.#read(() => this.#changes.all(fromSeq, limit)) as [...VersionRow, ...unknown[]][]
    return rows.map((row) => {
      const earlier = row.slice(versionColumnCount) as [...VersionRow]
      return { version: versionOf(row), previous: earlier[0] === null ? undefined : versionOf(earlier) }
    })
  }

  /** Up to `limit` versions before a seq, the last one first. */
  columnsBefore(beforeSeq: number, limit: number): VersionColumns {
    const row = this.#read(() => this.#columnsBefore.get(beforeSeq, limit)) as [...string[], Buffer | null]
    const lists = row.slice(0, columns.length).map((list) => JSON.parse(list as string) as number[])
    const [seq = [], revision = [], createRevision = [], version = [], valueBytes = [], previousSeq = []] =
      lists
    const [lease, keyBytes] = lists.slice(6) as [(0 | string)[], number[]]
    const keys = (row.at(-1) as Buffer | null) ?? Buffer.alloc(0)
    return { seq, revision, createRevision, version, valueBytes, previousSeq, lease, keyBytes, keys }
  }

  /** Up to `limit` versions behind a seq, without their keys. */
  links(afterSeq: number, limit: number): Link[] {
    return (this.#read(() => this.#links.all(afterSeq, limit)) as LinkRow[]).map(linkOf)
  }
}

function linkOf([seq, revision, version, previousSeq]: readonly [...LinkRow, ...unknown[]]): Link {
  return { seq, revision, isTombstone: version === 0, previousSeq }
}

function bound({ key, end }: Keys, { after, through }: Span): (number | Buffer | null)[] {
  const last = end === undefined ? null : Buffer.from(end, 'latin1')
  return [after, through, Buffer.from(key, 'latin1'), last, last]
}
