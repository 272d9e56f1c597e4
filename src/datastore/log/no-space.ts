import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { constants } from 'node:os'

import { privateMode } from '../../base/files.ts'

/**
 * What SQLite says when a file cannot grow: the database, its WAL or the WAL's index (-shm). SQLITE_FULL is ENOSPC
 * alone; a share of the disk that is used up (EDQUOT) comes as any other failure to write, and the errno is lost.
 */
const growthCodes: readonly string[] = ['SQLITE_IOERR_SHMSIZE', 'SQLITE_IOERR_TRUNCATE', 'SQLITE_IOERR_WRITE']
const { ENOSPC, EDQUOT } = constants.errno
/** Less than this is no space: the WAL's index grows by 32 KiB. */
const leastFreeBytes = 64 * 1024
/** With less than this free, a disk that was full counts as full still: a WAL takes as much. */
const roomBytes = 16 * 1024 * 1024
/** So much is written to see whether there is room. */
const triedBytes = 1024 * 1024

/** Whether a write failed for want of space; every other failure is one of the disk. */
export function isNoSpace(code: string, path: string): boolean {
  if (code === 'SQLITE_FULL') return true
  if (!growthCodes.includes(code)) return false
  return freeBytes(path) < leastFreeBytes || [ENOSPC, EDQUOT].includes(errnoOfWriting(path, leastFreeBytes))
}

/** Whether a disk that was full has room again: the file system says so, and takes a file of some size. */
export function hasRoom(path: string): boolean {
  try {
    return freeBytes(path) >= roomBytes && errnoOfWriting(path, triedBytes) === 0
  } catch {
    return false
  }
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize
}

/** Writes a file beside the database and removes it; returns what kept it from that, 0 for nothing. */
function errnoOfWriting(path: string, bytes: number): number {
  const tried = `${path}.room`
  try {
    rmSync(tried, { force: true })
    const descriptor = openSync(tried, 'wx', privateMode)
    try {
      const block = Buffer.alloc(leastFreeBytes, 1)
      for (let written = 0; written < bytes; ) written += writeSync(descriptor, block)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    return 0
  } catch (thrown) {
    // Negative, as libuv has it, which has no code for EDQUOT.
    return -((thrown as NodeJS.ErrnoException).errno ?? -constants.errno.EIO)
  } finally {
    rmSync(tried, { force: true })
  }
}
