import type { LoggedVersion } from './batch.ts'

/** What a version, its value and a lease are written with: their columns are in the order of the schema. */
export const inserts = {
  version: 'INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
  value: 'INSERT INTO value VALUES (?, ?)',
  // The deadline is for older versions of this program, which cut a lease to its time to live.
  lease: 'REPLACE INTO lease VALUES (?, ?, 9000000000000000)',
} as const

/** The columns that a version is read from. A lease does not fit into a number, and nearly all versions have none. */
export function versionColumnsOf(table: string): string {
  return `${table}.seq, ${table}.revision, ${table}.sub, ${table}.key, ${table}.create_revision, ${table}.version,
    CASE ${table}.lease WHEN 0 THEN NULL ELSE CAST(${table}.lease AS TEXT) END, ${table}.value_bytes, ${table}.previous_seq`
}

export const versionColumns = versionColumnsOf('version')
export const versionColumnCount = 9

export type VersionRow = [number, number, number, Buffer, number, number, string | null, number, number]

/** More columns may follow. */
export function versionOf([
  seq,
  revision,
  sub,
  key,
  createRevision,
  version,
  lease,
  valueBytes,
  previousSeq,
]: readonly [...VersionRow, ...unknown[]]): LoggedVersion {
  return {
    seq,
    revision,
    sub,
    key: key.toString('latin1'),
    createRevision,
    version,
    lease: lease === null ? 0n : BigInt(lease),
    valueBytes,
    previousSeq,
  }
}
