import { rmSync } from 'node:fs'

import type { Database, Statement } from 'better-sqlite3'

import { createPrivateFileSync, syncPathSync } from '../../base/files.ts'
import type { LoggedLease } from './batch.ts'
import type { DumpedVersion } from './dump.ts'
import type { DatabaseFile } from './inspect.ts'
import { openDatabase } from './schema.ts'
import { VersionLinks } from './version-links.ts'
import { inserts } from './version-row.ts'

const cacheBytes = 16 * 1024 * 1024
const transactionRows = 10_000

/**
 * Fills a new database, row by row. Until `finish` it is nobody's: a crash leaves a file that is of no
 * use, under a name that nobody opens.
 */
export class Loader {
  readonly #path: string
  readonly #database: Database
  readonly #insertVersion: Statement
  readonly #insertValue: Statement
  readonly #insertLease: Statement
  readonly #links = new VersionLinks()
  #seq = 0
  #isOpen = true

  /** `path` must not exist. */
  constructor(file: DatabaseFile) {
    this.#path = file.path
    createPrivateFileSync(file.path)
    this.#database = openDatabase({ ...file, cacheBytes })
    // One file, without a WAL beside it that a rename would leave behind.
    this.#database.pragma('journal_mode = DELETE')
    this.#database.pragma('journal_mode = OFF')
    this.#database.pragma('synchronous = OFF')
    this.#insertVersion = this.#database.prepare(inserts.version)
    this.#insertValue = this.#database.prepare(inserts.value)
    this.#insertLease = this.#database.prepare(inserts.lease)
    this.#database.exec('BEGIN')
  }

  get versions(): number {
    return this.#seq
  }

  /** Versions come in the order of their revisions. */
  version({ revision, sub, key, createRevision, version, lease, value }: DumpedVersion): void {
    const seq = ++this.#seq
    const previousSeq = this.#links.seqReplacedBy({ seq, key, version })
    this.#insertVersion.run(
      ...[seq, revision, sub, key, createRevision, version, lease, value.length, previousSeq],
    )
    if (version !== 0) this.#insertValue.run(seq, value)
    if (seq % transactionRows === 0) this.#database.exec('COMMIT; BEGIN')
  }

  lease({ id, ttlSeconds }: LoggedLease): void {
    this.#insertLease.run(id, ttlSeconds)
  }

  /** Brings all of it to the disk, in one file. */
  finish({ compactedRevision }: { compactedRevision: number }): void {
    if (compactedRevision > 0) {
      this.#database.prepare("INSERT INTO meta VALUES ('compact_revision', ?)").run(String(compactedRevision))
    }
    this.#database.exec('COMMIT')
    this.#close()
    syncPathSync(this.#path)
  }

  /** Removes what was loaded. */
  discard(): void {
    this.#close()
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${this.#path}${suffix}`, { force: true })
  }

  #close(): void {
    if (this.#isOpen) this.#database.close()
    this.#isOpen = false
  }
}
