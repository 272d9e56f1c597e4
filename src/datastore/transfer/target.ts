import { existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

import { AppError } from '../../base/errors.ts'
import { makePrivateDirectorySync, syncPathSync } from '../../base/files.ts'
import { type DatabaseFile, type DatabaseReport, inspectDatabase } from '../log/inspect.ts'
import { Loader } from '../log/load.ts'
import { DatastoreLock } from '../log/lock.ts'
import { checkDatabase } from '../log/soundness.ts'

/**
 * Makes a database of what `fill` loads, which returns the compacted revision (-1 for none). There must be
 * none before. It gets its name when it is whole, checked and on the disk.
 */
export async function fillDatabase(
  { path, nativeBinding }: DatabaseFile,
  fill: (loader: Loader) => Promise<number>,
  beforeUse?: () => Promise<void>,
): Promise<DatabaseReport> {
  makePrivateDirectorySync(dirname(path))
  using _lock = new DatastoreLock({ path, nativeBinding })
  refuseExisting(path)
  const loading = { path: `${path}.loading`, nativeBinding }
  for (const suffix of ['', '-journal', '-wal', '-shm']) rmSync(`${loading.path}${suffix}`, { force: true })
  const loader = new Loader(loading)
  try {
    loader.finish({ compactedRevision: await fill(loader) })
    const [finding] = checkDatabase(loading)
    if (finding !== undefined) {
      throw new AppError(`cannot import: the data contradict themselves: ${finding}`, {
        code: 'IMPORT_UNSOUND',
      })
    }
    await beforeUse?.()
    renameSync(loading.path, path)
    syncPathSync(dirname(path))
    return inspectDatabase({ path, nativeBinding })
  } catch (thrown) {
    loader.discard()
    throw thrown
  }
}

/** An empty file is what a start leaves that went no further. */
export function refuseExisting(path: string): void {
  if (!existsSync(path) || statSync(path).size === 0) return
  throw new AppError(`cannot import: there is a datastore already in ${path}`, {
    code: 'IMPORT_EXISTS',
    path,
    remedy: 'name another --data-dir, or move that file away with its -wal and -shm',
  })
}
