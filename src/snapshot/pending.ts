import { existsSync } from 'node:fs'
import { AppError } from '../base/errors.ts'
import { type Paths, restoreDirIn } from '../config/paths.ts'

type DataDir = Pick<Paths, 'dataDir'>

/** What is decided, and has to be carried out (restore.ts). */
export function pendingDir({ dataDir }: DataDir): string {
  return restoreDirIn(dataDir)
}

/** What is being prepared, or what of that is left. */
export function preparingDir(paths: DataDir): string {
  return `${pendingDir(paths)}.preparing`
}

/** While a restore is carried out, the database may be the old one and the keys the new ones, or there are none. */
export function refuseUnfinishedRestore(paths: DataDir, action: string): void {
  const path = pendingDir(paths)
  if (!existsSync(path)) return
  throw new AppError(`cannot ${action}: a restore, a migration or a reset is not finished`, {
    code: 'RESTORE_PENDING',
    path,
    remedy: 'start k8s, which finishes it, or give the command again',
  })
}
