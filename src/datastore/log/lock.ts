import { readFileSync, statSync } from 'node:fs'

import Database from 'better-sqlite3'

import { AppError, errorCode } from '../../base/errors.ts'
import { createPrivateFileSync } from '../../base/files.ts'

/**
 * Lets one process at a time have a datastore. The lock is SQLite's exclusive lock (fcntl) on an empty
 * file beside the database: the kernel drops it with its process, so none can be stale.
 */
export class DatastoreLock implements Disposable {
  readonly #database: Database.Database

  constructor({ path, nativeBinding }: { path: string; nativeBinding?: string | undefined }) {
    const lockPath = `${path}.lock`
    const options = nativeBinding === undefined ? {} : { nativeBinding }
    try {
      // Whoever may open the file could hold the lock; SQLite's own files beside it take its mode.
      createPrivateFileSync(lockPath)
      this.#database = new Database(lockPath, { ...options, timeout: 0 })
    } catch (thrown) {
      throw new AppError(
        'cannot open datastore',
        { code: 'DATASTORE_OPEN', path, remedy: 'Check that the directory exists and is writable.' },
        { cause: thrown },
      )
    }
    try {
      // A journal beside it would need space, which a full disk has not.
      this.#database.pragma('journal_mode = MEMORY')
      this.#database.exec('BEGIN EXCLUSIVE')
    } catch (thrown) {
      this.#database.close()
      if (errorCode(thrown) !== 'SQLITE_BUSY') throw thrown
      const pid = holderOf(lockPath)
      throw new AppError(
        `cannot open datastore: ${pid === undefined ? 'another process' : `process ${pid}`} has it`,
        {
          code: 'DATASTORE_LOCKED',
          path,
          pid,
          remedy: 'Stop that process, or name another data directory.',
        },
      )
    }
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }
}

/** The process that has the datastore at `path`, as far as /proc tells. */
export function ownerOf(path: string): number | undefined {
  return holderOf(`${path}.lock`)
}

/** The process that holds a lock on the file: proc_locks(5). */
function holderOf(path: string): number | undefined {
  try {
    const inode = statSync(path).ino
    for (const line of readFileSync('/proc/locks', 'latin1').split('\n')) {
      const match = /^\d+: POSIX +ADVISORY +\w+ (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line)
      if (match !== null && Number(match[2]) === inode) return Number(match[1])
    }
  } catch {
    // Without /proc the message goes without the holder.
  }
  return undefined
}
