import { chmod, mkdir } from 'node:fs/promises'
import type { Paths } from '../config/paths.ts'

/**
 * Makes the directories of the daemon. Keys, rendered files and the database are for root alone; the way to a
 * container's root file system can be passed by everybody, as pods in user namespaces do.
 */
export async function prepareDirectories(paths: Paths): Promise<void> {
  await mkdir(paths.dataDir, { recursive: true, mode: 0o755 })
  const modes: readonly (readonly [string, number])[] = [
    [paths.databaseDir, 0o700],
    [paths.pkiDir, 0o700],
    [paths.kubeconfigDir, 0o700],
    [paths.etcDir, 0o700],
    [paths.imagesDir, 0o755],
    [paths.runDir, 0o711],
  ]
  await Promise.all(
    modes.map(async ([dir, mode]) => {
      await mkdir(dir, { recursive: true, mode })
      await chmod(dir, mode)
    }),
  )
}
