import { AppError } from '../../base/errors.ts'
import { createPrivateFileSync, syncPathSync } from '../../base/files.ts'
import { type DatabaseFile, inspectDatabase } from './inspect.ts'
import { connect, openReadOnly } from './schema.ts'

const cacheBytes = 2 * 1024 * 1024

/**
 * Copies a database, as it is at one moment, into the new file `target`; whoever serves it goes on. One
 * read transaction, of about a second for 200,000 keys of 1.5 kB. SQLite's backup is no faster, and copies
 * free pages too. Not for the process that serves the database: fcntl(2) would drop its locks.
 */
export function copyDatabase(file: DatabaseFile, target: string): void {
  const database = openReadOnly(file)
  try {
    createPrivateFileSync(target)
    // The copy is not what is kept: nothing waits for it to be on the disk.
    database.pragma('synchronous = OFF')
    database.prepare('VACUUM INTO ?').run(target)
  } catch (cause) {
    throw new AppError(
      `cannot copy the database to ${target}`,
      {
        code: 'DATASTORE_COPY',
        path: target,
        remedy: 'check the disk and its free space, and "k8s db check"',
      },
      { cause },
    )
  } finally {
    database.close()
  }
}

/**
 * Makes a copy of former days into a database to go on with. Its revision becomes `revision`, and all
 * before it counts as compacted: whoever watched or listed the database that the copy takes the place of
 * is told so, and lists anew. (etcdutl snapshot restore --bump-revision --mark-compacted.)
 */
export function adoptCopy(file: DatabaseFile, { revision }: { revision: number }): void {
  const database = connect({ ...file, cacheBytes })
  try {
    database.prepare("REPLACE INTO meta VALUES ('compact_revision', ?)").run(String(revision))
    // One file again, without a WAL beside it.
    database.pragma('journal_mode = DELETE')
  } finally {
    database.close()
  }
  syncPathSync(file.path)
}

/** The revision of a database that may be missing or damaged; undefined where it cannot be told. */
export function revisionOf(file: DatabaseFile): number | undefined {
  try {
    return inspectDatabase(file).revision
  } catch {
    return undefined
  }
}
