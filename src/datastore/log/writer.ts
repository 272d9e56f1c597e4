import type { Database, Statement } from 'better-sqlite3'

import type { BatchSink, LoggedLease, LoggedVersion, MetaName } from './batch.ts'
import { readBatch } from './batch.ts'
import { type DatabaseOptions, connect } from './schema.ts'
import { type SpaceUse, measureSpace } from './space.ts'

/** A checkpoint is due when about this much went into the WAL. */
const checkpointBytes = 4 * 1024 * 1024
/** What a commit writes beside its rows: the pages that it shares with others. */
const commitOverheadBytes = 16 * 1024
/** Pages given back to the file system in one step. */
const vacuumStepPages = 256

/** The one connection that writes. Its methods block until the disk has what they wrote. */
export class LogWriter {
  readonly #database: Database
  readonly #sink: BatchSink
  readonly #begin: Statement
  readonly #commit: Statement
  readonly #rollback: Statement
  #walBytes = 0
  #hasForgotten = false

  constructor(options: DatabaseOptions) {
    this.#database = connect(options)
    this.#sink = this.#prepareSink()
    this.#begin = this.#database.prepare('BEGIN IMMEDIATE')
    this.#commit = this.#database.prepare('COMMIT')
    this.#rollback = this.#database.prepare('ROLLBACK')
  }

  /** Writes the batches in one transaction. After an error none of them is in the database. */
  write(batches: readonly Uint8Array[]): void {
    this.#begin.run()
    try {
      for (const batch of batches) readBatch(batch, this.#sink)
      this.#commit.run()
    } catch (thrown) {
      if (this.#database.inTransaction) this.#rollback.run()
      throw thrown
    }
    this.#walBytes += commitOverheadBytes
    for (const batch of batches) this.#walBytes += 2 * batch.length
  }

  /** Brings the WAL into the database file when enough of it has come together, or when asked to. */
  checkpoint({ force = false }: { force?: boolean } = {}): void {
    if (this.#walBytes === 0 || (!force && this.#walBytes < checkpointBytes)) return
    this.#database.pragma(force ? 'wal_checkpoint(TRUNCATE)' : 'wal_checkpoint(PASSIVE)')
    this.#walBytes = 0
  }

  /** Gives some of the free pages back; returns whether there are more. */
  vacuumStep(): boolean {
    if (!this.#hasForgotten) return false
    this.#database.pragma(`incremental_vacuum(${vacuumStepPages})`)
    this.#walBytes += vacuumStepPages * 4096
    this.#hasForgotten =
      (this.#database.pragma('freelist_count', { simple: true }) as number) > vacuumStepPages
    return this.#hasForgotten
  }

  space(): SpaceUse {
    return measureSpace(this.#database)
  }

  close(): void {
    this.#database.close()
  }

  #prepareSink(): BatchSink {
    const insertVersion = this.#database.prepare('INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?)')
    const insertValue = this.#database.prepare('INSERT INTO value VALUES (?, ?)')
    const replaceLease = this.#database.prepare('REPLACE INTO lease VALUES (?, ?, ?)')
    const deleteLease = this.#database.prepare('DELETE FROM lease WHERE id = ?')
    const replaceMeta = this.#database.prepare('REPLACE INTO meta VALUES (?, ?)')
    const deleteVersion = this.#database.prepare('DELETE FROM version WHERE seq = ?')
    const deleteValue = this.#database.prepare('DELETE FROM value WHERE seq = ?')
    return {
      version: (row: Omit<LoggedVersion, 'key'> & { key: Buffer }, value: Buffer) => {
        insertVersion.run(row.seq, row.revision, row.sub, row.key, row.createRevision, row.version, row.lease)
        if (row.version !== 0) insertValue.run(row.seq, value)
      },
      lease: ({ id, ttlSeconds, deadlineMs }: LoggedLease) => replaceLease.run(id, ttlSeconds, deadlineMs),
      endLease: (id: bigint) => deleteLease.run(id),
      meta: (name: MetaName, value: string) => replaceMeta.run(name, value),
      forget: (seq: number) => {
        this.#hasForgotten = true
        deleteVersion.run(seq)
        deleteValue.run(seq)
      },
    }
  }
}
