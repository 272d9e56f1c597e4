import { statSync } from 'node:fs'

import type { Database } from 'better-sqlite3'

import { ownerOf } from './lock.ts'
import { openReadOnly } from './schema.ts'
import { measureSpace } from './space.ts'

/** What a database holds and how large it is, as one consistent read found it. */
export interface DatabaseReport {
  readonly path: string
  readonly schemaVersion: number
  /** The process that has the datastore open. */
  readonly ownerPid: number | null
  /** As it was chosen when it was served for the first time; null before. */
  readonly clusterId: string | null
  readonly revision: number
  /** Null when nothing was ever compacted. */
  readonly compactedRevision: number | null
  /** Keys that exist now. */
  readonly keys: number
  /** All states of all keys that are kept, tombstones included. */
  readonly versions: number
  readonly leases: number
  readonly fileBytes: number
  readonly liveBytes: number
  readonly freeBytes: number
  readonly walBytes: number
  readonly alarms: readonly 'NOSPACE'[]
}

export interface DatabaseFile {
  readonly path: string
  readonly nativeBinding?: string | undefined
}

/** The states that no other has replaced. */
const countKeys = `SELECT (SELECT count(*) FROM version WHERE version <> 0) -
  (SELECT count(*) FROM version AS later CROSS JOIN version AS earlier ON earlier.seq = later.previous_seq)`
/** The other column is that of the row with the greatest seq: https://sqlite.org/lang_select.html#bareagg */
const countKeysUnlinked =
  'SELECT count(*) FROM (SELECT version, max(seq) FROM version GROUP BY key) WHERE version <> 0'

/** Reads a database, also while a datastore serves it. */
export function inspectDatabase(file: DatabaseFile): DatabaseReport {
  const database = openReadOnly(file)
  try {
    return database.transaction(() => report(database, file.path))()
  } finally {
    database.close()
  }
}

function report(database: Database, path: string): DatabaseReport {
  const number = (query: string): number => database.prepare(query).pluck().get() as number
  const meta = database.prepare('SELECT value FROM meta WHERE name = ?').pluck()
  const compacted = meta.get('compact_revision') as string | undefined
  const { bytes, bytesInUse } = measureSpace(database)
  const schemaVersion = database.pragma('user_version', { simple: true }) as number
  return {
    path,
    schemaVersion,
    ownerPid: ownerOf(path) ?? null,
    clusterId: (meta.get('cluster_id') as string | undefined) ?? null,
    revision: Math.max(
      1,
      Number(compacted ?? 0),
      number('SELECT coalesce((SELECT revision FROM version ORDER BY seq DESC LIMIT 1), 0)'),
    ),
    compactedRevision: compacted === undefined ? null : Number(compacted),
    keys: number(schemaVersion > 2 ? countKeys : countKeysUnlinked),
    versions: number('SELECT count(*) FROM version'),
    leases: number('SELECT count(*) FROM lease'),
    fileBytes: bytes,
    liveBytes: bytesInUse,
    freeBytes: bytes - bytesInUse,
    walBytes: statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0,
    alarms: [undefined, '0'].includes(meta.get('no_space') as string | undefined) ? [] : ['NOSPACE'],
  }
}
