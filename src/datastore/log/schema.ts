import { closeSync, openSync, readSync, statSync } from 'node:fs'

import Database from 'better-sqlite3'

import { AppError, errorCode } from '../../base/errors.ts'
import { isNoSpace } from './no-space.ts'
import { linkVersions } from './version-links.ts'

/** Marks a file as this project's datastore ("k8sd"), so that no other database is taken for one. */
const applicationId = 0x6b387364
export const pageBytes = 4096
/** The WAL file is cut back to this once a checkpoint has emptied it. */
const journalLimitBytes = 16 * 1024 * 1024
/** What PRAGMA auto_vacuum says for INCREMENTAL. */
const incrementalVacuum = 2

/**
 * Each migration leads from the version of its place to the next; none is ever changed once it was
 * released. The version in a file is SQLite's user_version.
 *
 * `version` has one row for each state of each key: an append-only log in the order of `seq`, of
 * which compaction removes what is superseded. Version 0 marks a tombstone. `value` is apart, so that
 * the index in memory is loaded without reading a single value.
 */
const migrations: readonly (string | ((database: Database.Database) => void))[] = [
  `CREATE TABLE version (
     seq INTEGER PRIMARY KEY,
     revision INTEGER NOT NULL,
     sub INTEGER NOT NULL,
     key BLOB NOT NULL,
     create_revision INTEGER NOT NULL,
     version INTEGER NOT NULL,
     lease INTEGER NOT NULL
   );
   CREATE TABLE value (seq INTEGER PRIMARY KEY, value BLOB NOT NULL);
   CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL, deadline_ms INTEGER NOT NULL);
   CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;`,
  // The index knows how long a reply will be before a value of it is read.
  `ALTER TABLE version ADD COLUMN value_bytes INTEGER NOT NULL DEFAULT 0;
   UPDATE version SET value_bytes = length(value) FROM value WHERE value.seq = version.seq;`,
  // The past is read without an index of keys: the first change after a revision leads to the state at it.
  (database) => {
    database.exec('ALTER TABLE version ADD COLUMN previous_seq INTEGER NOT NULL DEFAULT 0')
    linkVersions(database)
  },
]

export const schemaVersion: number = migrations.length

export interface DatabaseOptions {
  readonly path: string
  /** The path of better_sqlite3.node where it is not in node_modules. */
  readonly nativeBinding?: string | undefined
  readonly cacheBytes: number
}

/**
 * Opens the file, creating it or migrating its schema forward as needed. A file that is refused stays
 * as it is, and so does its WAL.
 */
export function openDatabase(options: DatabaseOptions): Database.Database {
  const { path, nativeBinding } = options
  let guard: Database.Database | undefined
  try {
    if (!isEmpty(path)) {
      inspectHeader(path)
      // While a connection that only reads is there, none that is closed removes the WAL.
      guard = open({ path, nativeBinding }, { readonly: true })
    }
    const database = open({ path, nativeBinding })
    try {
      inspectContents(database, path)
      configure(database, options)
      migrate(database)
    } catch (thrown) {
      database.close()
      throw thrown
    }
    return database
  } catch (thrown) {
    throw thrown instanceof AppError ? thrown : openError(path, thrown)
  } finally {
    guard?.close()
  }
}

/** A further connection to a database that `openDatabase` has prepared. */
export function connect(options: DatabaseOptions): Database.Database {
  const database = open(options)
  configure(database, options)
  return database
}

/**
 * A connection that only reads, also while another process writes. What `openDatabase` refuses is
 * refused in the same words; nothing is created, migrated or removed.
 */
export function openReadOnly({
  path,
  nativeBinding,
}: Omit<DatabaseOptions, 'cacheBytes'>): Database.Database {
  try {
    if (isEmpty(path)) throw missing(path)
    inspectHeader(path)
    const database = open({ path, nativeBinding }, { readonly: true })
    try {
      inspectContents(database, path)
      database.pragma('temp_store = MEMORY')
    } catch (thrown) {
      database.close()
      throw thrown
    }
    return database
  } catch (thrown) {
    throw thrown instanceof AppError ? thrown : openError(path, thrown)
  }
}

function open(
  { path, nativeBinding }: Pick<DatabaseOptions, 'path' | 'nativeBinding'>,
  options: Database.Options = {},
): Database.Database {
  return new Database(path, { ...options, ...(nativeBinding === undefined ? {} : { nativeBinding }) })
}

function configure(database: Database.Database, { cacheBytes }: DatabaseOptions): void {
  // The order matters: neither page size nor auto_vacuum can be set once there is a table or a WAL.
  database.pragma(`page_size = ${pageBytes}`)
  // Setting it writes also where it is so, for which a full disk has no space.
  if (database.pragma('auto_vacuum', { simple: true }) !== incrementalVacuum)
    database.pragma('auto_vacuum = INCREMENTAL')
  database.pragma('journal_mode = WAL')
  // better-sqlite3 is compiled with NORMAL for a reopened WAL, which can lose acknowledged commits.
  database.pragma('synchronous = FULL')
  database.pragma(`journal_size_limit = ${journalLimitBytes}`)
  database.pragma('wal_autocheckpoint = 0')
  database.pragma(`cache_size = -${Math.ceil(cacheBytes / 1024)}`)
  database.pragma('temp_store = MEMORY')
}

function isEmpty(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0
}

/** https://sqlite.org/fileformat2.html#the_database_header */
const header = { bytes: 100, magic: 'SQLite format 3\0', userVersionAt: 60, applicationIdAt: 68 } as const

/** Looks at a file before SQLite does, which would recover or remove what lies beside it. */
function inspectHeader(path: string): void {
  const bytes = Buffer.alloc(header.bytes)
  const descriptor = openSync(path, 'r')
  try {
    const read = readSync(descriptor, bytes, 0, header.bytes, 0)
    if (read < header.bytes || !bytes.toString('latin1').startsWith(header.magic)) throw damaged(path)
  } finally {
    closeSync(descriptor)
  }
  const owner = bytes.readUInt32BE(header.applicationIdAt)
  // A crash can leave the first transaction, which sets it, in the WAL.
  if (owner !== applicationId && owner !== 0) throw foreign(path)
  if (owner === applicationId) refuseNewer(path, bytes.readUInt32BE(header.userVersionAt))
}

function inspectContents(database: Database.Database, path: string): void {
  const owner = database.pragma('application_id', { simple: true }) as number
  const tables = database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() as number
  if (owner !== applicationId && tables > 0) throw foreign(path)
  refuseNewer(path, database.pragma('user_version', { simple: true }) as number)
}

/** Brings a schema of one version to another. */
export function runMigrations(database: Database.Database, from: number, to: number): void {
  for (const migration of migrations.slice(from, to)) {
    if (typeof migration === 'string') database.exec(migration)
    else migration(database)
  }
}

function migrate(database: Database.Database): void {
  const found = database.pragma('user_version', { simple: true }) as number
  if (found === schemaVersion) return
  database.transaction(() => {
    runMigrations(database, found, schemaVersion)
    database.pragma(`application_id = ${applicationId}`)
    database.pragma(`user_version = ${schemaVersion}`)
  })()
}

function missing(path: string): AppError {
  return new AppError('cannot open datastore: there is none', {
    code: 'DATASTORE_MISSING',
    path,
    remedy: 'Name the data directory that has db/state.db in it.',
  })
}

function refuseNewer(path: string, found: number): void {
  if (found <= schemaVersion) return
  throw new AppError('cannot open datastore: its schema is newer than this program', {
    code: 'DATASTORE_NEWER',
    path,
    schema: found,
    supported: schemaVersion,
    remedy: 'Start the version of k8s that wrote it, or restore a snapshot of the older one.',
  })
}

function foreign(path: string): AppError {
  return new AppError('cannot open datastore: the file is another program’s database', {
    code: 'DATASTORE_FOREIGN',
    path,
    remedy: 'Name another data directory, or import the file with "k8s db import-kine".',
  })
}

function damaged(path: string, cause?: unknown): AppError {
  return new AppError(
    'cannot open datastore: the file is damaged',
    {
      code: 'DATASTORE_DAMAGED',
      path,
      remedy: 'Keep the file and its -wal for an examination ("k8s db check") and restore a snapshot.',
    },
    cause === undefined ? undefined : { cause },
  )
}

function withoutSpace(path: string, cause: unknown): AppError {
  return new AppError(
    'cannot open datastore: its disk is full',
    { code: 'DATASTORE_NO_SPACE', path, remedy: 'Free space, then start again; a service manager does.' },
    { cause },
  )
}

function openError(path: string, cause: unknown): AppError {
  const code = errorCode(cause) ?? ''
  if (code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB') return damaged(path, cause)
  if (isNoSpace(code, path)) return withoutSpace(path, cause)
  return new AppError(
    'cannot open datastore',
    {
      code: 'DATASTORE_OPEN',
      path,
      remedy: 'Check that the directory exists, is writable and has free space.',
    },
    { cause },
  )
}
