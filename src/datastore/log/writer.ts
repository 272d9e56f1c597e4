import type { Database, Statement } from 'better-sqlite3'

import type { BatchSink, BatchedVersion, LoggedLease, MetaName } from './batch.ts'
import { readBatch } from './batch.ts'
import { type DatabaseOptions, connect, pageBytes } from './schema.ts'
import { type SpaceUse, measureSpace } from './space.ts'
import { inserts } from './version-row.ts'

/** A checkpoint is due when about this much went into the WAL. */
const checkpointBytes = 2 * 1024 * 1024
/** A WAL of this size is started anew even if readers have to be waited for. */
const restartBytes = 16 * 1024 * 1024
/** How long a checkpoint waits for those who read; after that the next one tries again. */
const readersWaitMs = 20
const commitWaitMs = 5000
/** What a commit writes beside its rows: the pages that it shares with others. */
const commitOverheadBytes = 16 * 1024
/** Free pages are kept for what is written next, in this proportion to those in use. */
const slackDivisor = 8
const leastSlackPages = 256
/** How many pages are given back in one step, and the time that it should take. */
const vacuumPages = { first: 64, least: 8, most: 1024 } as const
const vacuumStepMs = { short: 2, long: 6 } as const

/** The one connection that writes. Its methods block until the disk has what they wrote. */
export class LogWriter {
  readonly #database: Database
  readonly #sink: BatchSink
  readonly #begin: Statement
  readonly #commit: Statement
  readonly #rollback: Statement
  #walBytes = 0
  /** Also at the start: what the last process freed may not be given back yet. */
  #hasForgotten = true
  #vacuumPages: number = vacuumPages.first

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

  /** Brings the WAL into the database file when enough of it has come together, or empties it. */
  checkpoint({ isForced = false }: { isForced?: boolean } = {}): void {
    if (this.#walBytes === 0 || (!isForced && this.#walBytes < checkpointBytes)) return
    this.#walBytes = 0
    if (isForced) return this.#checkpointBehindReaders('TRUNCATE')
    const [{ log } = { log: 0 }] = this.#database.pragma('wal_checkpoint(PASSIVE)') as { log: number }[]
    // Without readers the next write starts the WAL anew; with them it grows.
    if (log * pageBytes >= restartBytes) this.#checkpointBehindReaders('RESTART')
  }

  #checkpointBehindReaders(mode: 'RESTART' | 'TRUNCATE'): void {
    this.#database.pragma(`busy_timeout = ${readersWaitMs}`)
    try {
      const [{ busy } = { busy: 0 }] = this.#database.pragma(`wal_checkpoint(${mode})`) as { busy: number }[]
      if (busy !== 0) this.#walBytes = checkpointBytes
    } finally {
      this.#database.pragma(`busy_timeout = ${commitWaitMs}`)
    }
  }

  /**
   * Gives some of the free pages back, as many as do not hold a commit up. Unless all are asked for,
   * some are kept: a page that is taken from the file system again costs more than one that is free.
   */
  vacuumStep({ isAll }: { isAll: boolean }): 'more' | 'done' | 'nothing' {
    if (!this.#hasForgotten && !isAll) return 'nothing'
    const excess = this.#excessPages(isAll)
    if (excess <= 0) {
      this.#hasForgotten = false
      return 'nothing'
    }
    const pages = Math.min(excess, this.#vacuumPages)
    const startMs = performance.now()
    this.#database.pragma(`incremental_vacuum(${pages})`)
    this.#walBytes += pages * pageBytes
    const tookMs = performance.now() - startMs
    if (tookMs > vacuumStepMs.long) this.#vacuumPages = Math.max(vacuumPages.least, this.#vacuumPages / 2)
    else if (tookMs < vacuumStepMs.short)
      this.#vacuumPages = Math.min(vacuumPages.most, this.#vacuumPages * 2)
    return pages < excess ? 'more' : 'done'
  }

  #excessPages(isAll: boolean): number {
    const free = this.#database.pragma('freelist_count', { simple: true }) as number
    if (isAll) return free
    const used = (this.#database.pragma('page_count', { simple: true }) as number) - free
    return free - Math.max(leastSlackPages, Math.ceil(used / slackDivisor))
  }

  space(): SpaceUse {
    return measureSpace(this.#database)
  }

  close(): void {
    this.#database.close()
  }

  #prepareSink(): BatchSink {
    const insertVersion = this.#database.prepare(inserts.version)
    const insertValue = this.#database.prepare(inserts.value)
    const insertLease = this.#database.prepare(inserts.lease)
    const deleteLease = this.#database.prepare('DELETE FROM lease WHERE id = ?')
    const replaceMeta = this.#database.prepare('REPLACE INTO meta VALUES (?, ?)')
    const deleteVersion = this.#database.prepare('DELETE FROM version WHERE seq = ?')
    const deleteValue = this.#database.prepare('DELETE FROM value WHERE seq = ?')
    return {
      version: (row: BatchedVersion, value: Buffer) => {
        const { seq, revision, sub, key, createRevision, version, lease, previousSeq } = row
        insertVersion.run(seq, revision, sub, key, createRevision, version, lease, value.length, previousSeq)
        if (version !== 0) insertValue.run(seq, value)
      },
      lease: ({ id, ttlSeconds }: LoggedLease) => insertLease.run(id, ttlSeconds),
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
