import { statfsSync } from 'node:fs'

/** What SQLite says when a file cannot grow: the database, its WAL or the WAL's index (-shm). */
const growthCodes: readonly string[] = ['SQLITE_IOERR_SHMSIZE', 'SQLITE_IOERR_TRUNCATE', 'SQLITE_IOERR_WRITE']
/** Less than this is no space: the WAL's index grows by 32 KiB. */
const leastFreeBytes = 64 * 1024

/** Whether a write failed for want of space; every other failure is one of the disk. */
export function isNoSpace(code: string, path: string): boolean {
  if (code === 'SQLITE_FULL') return true
  if (!growthCodes.includes(code)) return false
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize < leastFreeBytes
}
