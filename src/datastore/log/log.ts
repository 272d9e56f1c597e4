import type { Worker } from 'node:worker_threads'

import type { Database, Statement } from 'better-sqlite3'

import { AppError, describeError } from '../../base/errors.ts'
import { Histogram } from '../../base/histogram.ts'
import { BatchWriter, type LoggedLease, type LoggedVersion, type MetaName } from './batch.ts'
import { damagedValue } from './damaged-value.ts'
import { LogReader } from './log-reader.ts'
import { PastReader } from './past-reader.ts'
import { type DatabaseOptions, openDatabase } from './schema.ts'
import type { WriterReply, WriterRequest } from './writer-thread.ts'
import { type SpaceUse, measureSpace } from './space.ts'

export type { LoggedLease, LoggedVersion, MetaName } from './batch.ts'
export type { SpaceUse } from './space.ts'

/** etcd: storage/backend/metrics.go, commitSec; in seconds. */
const commitBounds = [
  0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
]

/** A batch of this size is sent before the turn of the event loop is over. */
const batchLimitBytes = 4 * 1024 * 1024

/** Values are read together up to this size and number. */
const gluedLimits = { bytes: 256 * 1024, values: 512 } as const
const noBytes = new Uint8Array(0)

/** Where a value is, and how long it must be. */
type StoredValue = Pick<LoggedVersion, 'seq' | 'valueBytes'>

/** Who is told of commits. */
interface LogListener {
  /** Everything up to this revision is on disk. Called before the `afterCommit` callbacks. */
  committed(revision: number): void
  /** What was appended since the last commit is lost, because the disk has no space. */
  lost(): void
  /** The writer cannot go on. */
  failed(error: AppError): void
  /** A value could not be read; the request that wanted it has failed. */
  damaged(error: AppError): void
}

interface Waiting {
  readonly position: number
  readonly callback: (isCommitted: boolean) => void
}

/**
 * The log as the thread that serves requests sees it: it reads on its own connection, and appends to
 * batches that the writer's thread commits. Appending never blocks and never fails; what was appended
 * in one turn of the event loop is committed together unless it is large, and a transaction always is.
 */
export class Log {
  /** How long commits took, in seconds. */
  readonly commits = new Histogram(commitBounds)
  /** What is no more in memory. */
  readonly past: PastReader
  readonly #options: DatabaseOptions
  readonly #database: Database
  readonly #writer: Worker
  readonly #selectValue: Statement
  readonly #selectValues: Statement
  readonly #beginRead: Statement
  readonly #endRead: Statement
  #listener: LogListener | undefined
  readonly #batch = new BatchWriter()
  /** Batches are counted from 1; the one that is being filled has this number. */
  #position = 1
  #committedPosition = 0
  #waiting: Waiting[] = []
  /** The newest revision of each batch that was sent, in order. */
  #sent: { position: number; revision: number; bytes: number }[] = []
  #sentBytes = 0
  #appendedBytes = 0
  /** Of the newest version that was appended, and of the newest that was committed; 0 before the first. */
  #revision = 0
  #committedRevision = 0
  #isFlushScheduled = false
  #isReading = false
  /** A value was read in this turn of the event loop. */
  #hasReadValue = false
  #space: SpaceUse
  #tidied: (() => void)[] = []
  #roomTried: ((hasRoom: boolean) => void)[] = []
  #closed: (() => void) | undefined

  /** `writer` is a thread that runs `runLogWriter`; it opens the database when it gets its first batch. */
  constructor(options: DatabaseOptions, writer: Worker) {
    this.#writer = writer
    this.#options = options
    this.#database = openDatabase(options)
    this.#selectValue = this.#database.prepare('SELECT value FROM value WHERE seq = ?').pluck()
    // They are gathered in the order of seq: SQLite sorts what IN is given.
    this.#selectValues = this.#database
      .prepare(
        `SELECT CAST(group_concat(value, '') AS BLOB), count(*)
         FROM value WHERE seq IN (SELECT value FROM json_each(?))`,
      )
      .raw()
    this.#beginRead = this.#database.prepare('BEGIN')
    this.#endRead = this.#database.prepare('COMMIT')
    this.past = new PastReader(this.#database, (read) => this.#read(read))
    this.#space = measureSpace(this.#database)
    this.#writer.on('message', (reply: WriterReply) => this.#replied(reply))
    this.#writer.on('error', (error: Error) => this.#fail('the writer’s thread has ended', error))
    this.#writer.on('exit', () => this.#closed?.())
  }

  listen(listener: LogListener): void {
    this.#listener = listener
  }

  /** As measured after a recent commit. */
  get space(): SpaceUse {
    return this.#space
  }

  /** The bytes that wait for the disk. */
  get uncommittedBytes(): number {
    return this.#batch.bytes + this.#sentBytes
  }

  /** The bytes of the keys and values of all versions that were appended. */
  get appendedBytes(): number {
    return this.#appendedBytes
  }

  readMeta(name: MetaName): string | undefined {
    return this.#database.prepare('SELECT value FROM meta WHERE name = ?').pluck().get(name) as
      | string
      | undefined
  }

  readLeases(): LoggedLease[] {
    const rows = this.#database.prepare('SELECT CAST(id AS TEXT), ttl_seconds FROM lease').raw().all() as [
      string,
      number,
    ][]
    return rows.map(([id, ttlSeconds]) => ({ id: BigInt(id), ttlSeconds }))
  }

  /** The value of a version that is on disk and not compacted; a copy of its own. */
  readValue({ seq, valueBytes }: StoredValue): Uint8Array {
    const value = this.#readAlone(() => this.#selectValue.get(seq) as Buffer | undefined)
    if (value?.length !== valueBytes) throw this.#damaged(new Error(`version ${seq} has none of its length`))
    return value
  }

  /**
   * The values of many such versions, whose `seq`s ascend. Many come as one from SQLite: making a buffer of each costs
   * more than reading it.
   */
  readValues(versions: readonly StoredValue[]): Uint8Array[] {
    const values: Uint8Array[] = []
    for (let at = 0; at < versions.length; ) {
      const end = endOfGlued(versions, at)
      this.#readGlued(versions.slice(at, end), values)
      at = end
    }
    return values
  }

  #readGlued(versions: readonly StoredValue[], values: Uint8Array[]): void {
    const wanted = versions.map(({ seq }) => seq).join()
    const [glued, count] = this.#read(() => this.#selectValues.get(`[${wanted}]`)) as GluedValues
    let start = 0
    for (const { valueBytes } of versions) {
      values.push(glued?.subarray(start, start + valueBytes) ?? noBytes)
      start += valueBytes
    }
    if (count === versions.length && start === (glued?.length ?? 0)) return
    throw this.#damaged(new Error(`one of the versions ${wanted} has none of its length`))
  }

  /** The first value of a turn, most often the only one, is read without a transaction, which would cost more than itself. */
  #readAlone<Row>(read: () => Row): Row {
    if (this.#isReading || this.#hasReadValue) return this.#read(read)
    this.#hasReadValue = true
    queueMicrotask(() => (this.#hasReadValue = false))
    try {
      return read()
    } catch (thrown) {
      throw this.#damaged(thrown)
    }
  }

  #read<Row>(read: () => Row): Row {
    try {
      if (!this.#isReading) {
        // One read transaction for all reads of a turn; a new one sees what was committed in between.
        this.#beginRead.run()
        this.#isReading = true
        setImmediate(() => this.#endReading())
      }
      return read()
    } catch (thrown) {
      throw this.#damaged(thrown)
    }
  }

  #damaged(cause: unknown): AppError {
    const error = damagedValue(this.#options.path, cause)
    this.#listener?.damaged(error)
    return error
  }

  /** Reads all that is on disk now, at the pace of its user. */
  openReader(): LogReader {
    return new LogReader(this.#options)
  }

  appendVersion(version: LoggedVersion, value: Uint8Array): void {
    this.#batch.version(version, value)
    this.#appendedBytes += version.key.length + value.length
    this.#revision = version.revision
    this.#appended()
  }

  appendLease(lease: LoggedLease): void {
    this.#batch.lease(lease)
    this.#appended()
  }

  appendLeaseEnd(id: bigint): void {
    this.#batch.endLease(id)
    this.#appended()
  }

  appendMeta(name: MetaName, value: string): void {
    this.#batch.meta(name, value)
    this.#appended()
  }

  /** What follows may be committed apart from what was appended so far. */
  endTransaction(): void {
    if (this.#batch.bytes >= batchLimitBytes) this.#flush()
  }

  /** Removes versions and their values. */
  appendForget(seqs: readonly number[]): void {
    for (const seq of seqs) this.#batch.forget(seq)
    if (seqs.length > 0) this.#appended()
  }

  /**
   * Calls back when all that was appended so far is on disk (at once when it is), or with false when it
   * was lost for want of space.
   */
  afterCommit(callback: (isCommitted: boolean) => void): void {
    const position = this.#batch.isEmpty ? this.#position - 1 : this.#position
    if (position <= this.#committedPosition) callback(true)
    else this.#waiting.push({ position, callback })
  }

  /** Gives all free space back to the file system and empties the WAL; calls back when that is done. */
  tidy(callback: () => void): void {
    this.#flush()
    this.#tidied.push(callback)
    this.#writer.postMessage({ tidy: true } satisfies WriterRequest)
  }

  /** Tells whether a disk that was full has room again, which is tried by writing a file. */
  tryRoom(callback: (hasRoom: boolean) => void): void {
    this.#roomTried.push(callback)
    this.#writer.postMessage({ tryRoom: true } satisfies WriterRequest)
  }

  /** Writes what was appended and closes the database. */
  async close(): Promise<void> {
    this.#endReading()
    this.#flush()
    await new Promise<void>((resolve) => {
      this.#closed = resolve
      this.#writer.postMessage({ close: true } satisfies WriterRequest)
    })
    this.#database.close()
  }

  #appended(): void {
    if (this.#isFlushScheduled) return
    this.#isFlushScheduled = true
    // After all requests that came in with this turn of the event loop.
    setImmediate(() => {
      this.#isFlushScheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#batch.isEmpty) return
    const batch = this.#batch.take()
    this.#sent.push({ position: this.#position, revision: this.#revision, bytes: batch.length })
    this.#sentBytes += batch.length
    this.#position++
    this.#writer.postMessage({ batch } satisfies WriterRequest, [batch.buffer])
  }

  #replied(reply: WriterReply): void {
    switch (reply.kind) {
      case 'committed':
        if (reply.space !== undefined) this.#space = reply.space
        this.commits.observe(reply.durationMs / 1000)
        for (const memory of reply.written) this.#batch.reuse(memory)
        return this.#committed(reply.batches)
      case 'failed':
        if (!reply.isNoSpace) return this.#fail(`${reply.code}: ${reply.message}`, undefined)
        return this.#lost()
      case 'tidied':
        this.#space = reply.space
        if (reply.isAll) for (const callback of this.#tidied.splice(0)) callback()
        return
      case 'room-tried':
        return this.#roomTried.shift()?.(reply.hasRoom)
      case 'closed':
        return
    }
  }

  #committed(position: number): void {
    this.#endReading()
    let revision = 0
    while (this.#sent.length > 0 && (this.#sent[0] as { position: number }).position <= position) {
      const sent = this.#sent.shift() as { revision: number; bytes: number }
      revision = sent.revision
      this.#sentBytes -= sent.bytes
    }
    this.#committedPosition = position
    if (revision > 0) this.#committedRevision = revision
    if (revision > 0) this.#listener?.committed(revision)
    this.#settle(position, true)
  }

  /** Nothing that was appended since the last commit counts: not what failed, nor what followed it. */
  #lost(): void {
    this.#endReading()
    this.#batch.discard()
    this.#sent = []
    this.#sentBytes = 0
    this.#revision = this.#committedRevision
    this.#committedPosition = this.#position - 1
    this.#writer.postMessage({ resume: true } satisfies WriterRequest)
    this.#listener?.lost()
    this.#settle(this.#position, false)
  }

  #settle(position: number, isCommitted: boolean): void {
    let count = 0
    while (count < this.#waiting.length && (this.#waiting[count] as Waiting).position <= position) count++
    for (const { callback } of this.#waiting.splice(0, count)) callback(isCommitted)
  }

  #endReading(): void {
    if (!this.#isReading) return
    this.#isReading = false
    try {
      this.#endRead.run()
    } catch {
      // After a read that failed SQLite refuses the end, too, or the transaction is over.
      if (this.#database.inTransaction) this.#database.exec('ROLLBACK')
    }
  }

  #fail(reason: string, cause: Error | undefined): void {
    this.#listener?.failed(
      new AppError(
        `cannot write to the datastore: ${cause === undefined ? reason : `${reason}: ${describeError(cause)}`}`,
        {
          code: 'DATASTORE_WRITE',
          remedy: 'Check the disk, then start again; what was acknowledged is kept.',
        },
      ),
    )
  }
}

/** Values one behind the other, and how many they are; nothing when there is none. */
type GluedValues = readonly [values: Buffer | null, count: number]

/** The end of those that are read together from a place on: at least one. */
function endOfGlued(versions: readonly StoredValue[], start: number): number {
  const last = Math.min(versions.length, start + gluedLimits.values)
  let end = start
  for (let bytes = 0; end < last && bytes < gluedLimits.bytes; end++) {
    bytes += (versions[end] as StoredValue).valueBytes
  }
  return end
}
