import type { LoggedVersion } from './batch.ts'

/** What a version, its value and a lease are written with: their columns are in the order of the schema. */
export const inserts = {
  version: 'INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
  value: 'INSERT INTO value VALUES (?, ?)',
  // The deadline is for older versions of this program, which cut a lease to its time to live.
  lease: 'REPLACE INTO lease VALUES (?, ?, 9000000000000000)',
} as const

/** A lease does not fit into a number, and nearly all versions have none. */
export const versionColumns = `version.seq, revision, sub, key, create_revision, version,
  CASE lease WHEN 0 THEN NULL ELSE CAST(lease AS TEXT) END, value_bytes`

export type VersionRow = [number, number, number, Buffer, number, number, string | null, number]

/** More columns may follow. */
export function versionOf([seq, revision, sub, key, createRevision, version, lease, valueBytes]: readonly [
  ...VersionRow,
  ...unknown[],
]): LoggedVersion {
  return {
    seq,
    revision,
    sub,
    key: key.toString('latin1'),
    createRevision,
    version,
    lease: lease === null ? 0n : BigInt(lease),
    valueBytes,
  }
}
