import type { Database } from 'better-sqlite3'

import { describeError } from '../../base/errors.ts'
import type { DatabaseFile } from './inspect.ts'
import { openReadOnly } from './schema.ts'

/** No more than this many findings of one kind are told: one broken page brings thousands. */
const findingsLimit = 100

interface Row {
  readonly seq: number
  readonly revision: number
  readonly sub: number
  readonly key: Buffer
  readonly createRevision: number
  readonly version: number
  readonly lease: string
  /** Null in a file of a schema that has none. */
  readonly previousSeq: number | null
}

/**
 * Looks for what is wrong with a database: SQLite's own check of its pages, then the rules that this
 * datastore's rows keep. One sentence a finding; none means that the database is sound. Works on one
 * consistent state, also while a datastore serves it.
 */
export function checkDatabase(file: DatabaseFile): string[] {
  const database = openReadOnly(file)
  try {
    database.exec('BEGIN')
    const damage = checkPages(database)
    return damage.length > 0 ? damage : [...checkVersions(database), ...checkValues(database)]
  } catch (thrown) {
    return [`a page cannot be read: ${describeError(thrown)}`]
  } finally {
    database.close()
  }
}

/** https://sqlite.org/pragma.html#pragma_integrity_check */
function checkPages(database: Database): string[] {
  const lines = database.prepare(`PRAGMA integrity_check(${findingsLimit})`).pluck().all() as string[]
  return lines.filter((line) => line !== 'ok').map((line) => `SQLite: ${line}`)
}

/** The rules of the log: `Store` (datastore/mvcc/store.ts) writes by them and relies on them. */
function checkVersions(database: Database): string[] {
  const compacted = Number(
    database.prepare("SELECT value FROM meta WHERE name = 'compact_revision'").pluck().get() ?? -1,
  )
  // Files of earlier schemas are migrated when they are served.
  const isLinked = schemaOf(database) > 2
  const findings: string[] = []
  /** Of the live keys. */
  const newest = new Map<string, Row>()
  let last: Row | undefined
  const rows = database
    .prepare(
      `SELECT seq, revision, sub, key, create_revision AS createRevision, version, CAST(lease AS TEXT) AS lease,
              ${isLinked ? 'previous_seq' : 'NULL'} AS previousSeq
       FROM version ORDER BY seq`,
    )
    .iterate() as IterableIterator<Row>
  for (const row of rows) {
    const name = row.key.toString('latin1')
    const wrong = orderFault(row, last) ?? stateFault({ row, previous: newest.get(name), compacted })
    if (wrong !== undefined) findings.push(`version ${row.seq} of ${JSON.stringify(name)}: ${wrong}`)
    if (findings.length >= findingsLimit) return findings
    // The next one creates the key again.
    if (row.version === 0) newest.delete(name)
    else newest.set(name, row)
    last = row
  }
  return [...findings, ...checkLeases(database, newest)]
}

function orderFault(row: Row, last: Row | undefined): string | undefined {
  if (last === undefined || row.revision > last.revision) return undefined
  if (row.revision < last.revision) return `its revision ${row.revision} comes after ${last.revision}`
  return row.sub > last.sub ? undefined : `it repeats place ${row.sub} of revision ${row.revision}`
}

function stateFault({
  row,
  previous,
  compacted,
}: {
  row: Row
  previous: Row | undefined
  compacted: number
}): string | undefined {
  const isTombstone = row.version === 0
  if (isTombstone && (row.createRevision !== 0 || row.lease !== '0'))
    return 'a tombstone has a create revision or a lease'
  if (!isTombstone && !(row.createRevision >= 1 && row.createRevision <= row.revision))
    return `its create revision ${row.createRevision} is not within 1 and its revision ${row.revision}`
  if (previous === undefined) {
    // Compaction removes what was before, up to the newest state at the compacted revision.
    const isFirst = row.version === 1 && row.createRevision === row.revision && !row.previousSeq
    return isFirst || row.revision <= compacted ? undefined : 'the state before it is missing'
  }
  if (!isTombstone) {
    const version = previous.version + 1
    const { createRevision } = previous
    if (row.version !== version || row.createRevision !== createRevision)
      return `it says version ${row.version}, created at ${row.createRevision}, where ${version}, created at ${createRevision}, follows`
  }
  if ((row.previousSeq ?? previous.seq) === previous.seq) return undefined
  return `it says that it replaces version ${row.previousSeq}, where ${previous.seq} comes before it`
}

function checkLeases(database: Database, newest: ReadonlyMap<string, Row>): string[] {
  const leases = new Set(database.prepare('SELECT CAST(id AS TEXT) FROM lease').pluck().all() as string[])
  const findings: string[] = []
  for (const [name, { lease }] of newest) {
    if (lease === '0' || leases.has(lease)) continue
    findings.push(`key ${JSON.stringify(name)}: its lease ${lease} does not exist`)
    if (findings.length >= findingsLimit) break
  }
  return findings
}

function checkValues(database: Database): string[] {
  const sentences: [query: string, wrong: string][] = [
    [
      'SELECT seq FROM version WHERE version <> 0 AND NOT EXISTS (SELECT 1 FROM value WHERE value.seq = version.seq)',
      'has no value',
    ],
    [
      'SELECT seq FROM value WHERE NOT EXISTS (SELECT 1 FROM version WHERE version.seq = value.seq AND version <> 0)',
      'has a value, but is a tombstone or gone',
    ],
  ]
  // Schema 1 has no lengths.
  if (schemaOf(database) > 1) {
    sentences.push([
      'SELECT seq FROM version JOIN value USING (seq) WHERE length(value) <> value_bytes',
      'has a value of another length than it says',
    ])
  }
  return sentences.flatMap(([query, wrong]) => {
    const seqs = database.prepare(`${query} LIMIT ${findingsLimit}`).pluck().all() as number[]
    return seqs.map((seq) => `version ${seq} ${wrong}`)
  })
}

function schemaOf(database: Database): number {
  return database.pragma('user_version', { simple: true }) as number
}
