import type { Database } from 'better-sqlite3'

import type { LoggedLease } from './batch.ts'
import type { DatabaseFile } from './inspect.ts'
import { connect, openReadOnly } from './schema.ts'

/** SQLite's page cache of a connection that reads everything once. */
const cacheBytes = 2 * 1024 * 1024
const neverCompacted = -1

/** A row of the log with its value; key and value are copies of their own. */
export interface DumpedVersion {
  readonly revision: number
  readonly sub: number
  readonly key: Uint8Array
  readonly createRevision: number
  /** 0 marks a tombstone, which has no value. */
  readonly version: number
  readonly lease: bigint
  readonly value: Uint8Array
}

/**
 * All that a datastore holds, as it was at one moment: everything is read in one transaction, on a
 * connection of its own. Writers go on meanwhile; the WAL grows by what they write until `close`.
 */
export class Dump implements Disposable {
  /** -1 when nothing was ever compacted. */
  readonly compactedRevision: number
  readonly revision: number
  readonly #database: Database

  /** With `isOurs` this process serves the database: then its file must not be opened but by SQLite (fcntl(2)). */
  constructor(file: DatabaseFile, { isOurs = false }: { isOurs?: boolean } = {}) {
    this.#database = isOurs ? connect({ ...file, cacheBytes }) : openReadOnly(file)
    this.#database.exec('BEGIN')
    const number = (query: string): number | undefined => {
      const found = this.#database.prepare(query).pluck().get() as string | number | undefined
      return found === undefined ? undefined : Number(found)
    }
    this.compactedRevision =
      number("SELECT value FROM meta WHERE name = 'compact_revision'") ?? neverCompacted
    const newest = number('SELECT revision FROM version ORDER BY seq DESC LIMIT 1') ?? 1
    this.revision = Math.max(1, this.compactedRevision, newest)
  }

  /** In the order of the log. */
  *versions(): Generator<DumpedVersion> {
    const rows = this.#database
      .prepare(
        `SELECT revision, sub, key, create_revision, version,
                CASE lease WHEN 0 THEN NULL ELSE CAST(lease AS TEXT) END, value
         FROM version LEFT JOIN value USING (seq) ORDER BY seq`,
      )
      .raw()
      .iterate() as IterableIterator<[number, number, Buffer, number, number, string | null, Buffer | null]>
    for (const [revision, sub, key, createRevision, version, lease, value] of rows) {
      yield {
        ...{ revision, sub, key, createRevision, version },
        lease: lease === null ? 0n : BigInt(lease),
        value: value ?? new Uint8Array(0),
      }
    }
  }

  leases(): LoggedLease[] {
    const rows = this.#database
      .prepare('SELECT CAST(id AS TEXT), ttl_seconds FROM lease ORDER BY id')
      .raw()
      .all() as [string, number][]
    return rows.map(([id, ttlSeconds]) => ({ id: BigInt(id), ttlSeconds }))
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }
}
