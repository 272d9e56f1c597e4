import { chmod, mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError } from '../base/errors.ts'
import { privateDirectoryMode, publicMode, writeFileIfChanged } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import { readBootId } from '../base/proc.ts'
import type { Paths } from '../config/paths.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { isBelow, readMounts } from '../node/facts/mounts.ts'

/**
 * Makes the directories of the daemon. Keys, rendered files and the database are for root alone; the way to a
 * container's root file system can be passed by everybody, as pods in user namespaces do.
 */
export async function prepareDirectories(
  paths: Paths,
  log: Logger,
  { isServer = true }: { isServer?: boolean } = {},
): Promise<void> {
  await mkdir(paths.dataDir, { recursive: true, mode: 0o755 })
  await forgetFormerBoot(paths.runDir)
  const modes: readonly (readonly [string, number])[] = [
    // What joins a cluster has keys only when it has joined; until then they would tell of a server.
    ...(isServer ? serverDirectories(paths) : []),
    [paths.kubeconfigDir, privateDirectoryMode],
    [paths.etcDir, privateDirectoryMode],
    [paths.imagesDir, 0o755],
    [paths.runDir, 0o711],
  ]
  await Promise.all(
    modes.map(async ([dir, mode]) => {
      await mkdir(dir, { recursive: true, mode })
      await chmod(dir, mode)
    }),
  )
  await rememberBoot(join(paths.runDir, 'boot-id'), log)
}

function serverDirectories({ databaseDir, pkiDir }: Paths): (readonly [string, number])[] {
  return [
    [databaseDir, privateDirectoryMode],
    [pkiDir, privateDirectoryMode],
  ]
}

/** A full disk is no reason not to start: what is of a boot that nobody knows is kept. */
async function rememberBoot(path: string, log: Logger): Promise<void> {
  try {
    await writeFileIfChanged(path, `${readBootId()}\n`, { mode: publicMode })
  } catch (error) {
    log.warn({ path, reason: describeError(error) }, 'cannot remember which boot of the machine this is')
    await rm(path, { force: true })
  }
}

/**
 * What runs ends with the machine: sockets, containerd's bundles and the addresses of pods are removed after a
 * reboot, as they would be from /run. Where something is mounted, that reboot has not been one for it.
 */
async function forgetFormerBoot(runDir: string): Promise<void> {
  const former = await readFile(join(runDir, 'boot-id'), 'utf8').catch(() => undefined)
  if (former === undefined || former.trim() === readBootId()) return
  if (readMounts(new HostFiles()).some(({ path }) => isBelow(path, runDir))) return
  await rm(runDir, { recursive: true, force: true })
}
