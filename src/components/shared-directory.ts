import { mkdir } from 'node:fs/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { isBelow, mountOf, readMounts } from '../node/facts/mounts.ts'
import { runCommand } from '../supervisor/spawn.ts'

const commandTimeoutMs = 10_000

/**
 * Lets containers see what is mounted below a directory (HostToContainer, Bidirectional; drivers of CSI need it), in
 * this mount namespace, as pods outlive the daemon: a mount of its own is made shared, any other directory is bound
 * onto itself. `k8s reset` undoes that. The kubelet would do so itself, over what is mounted below. Repeatable; what cannot be done is told and fails nothing.
 */
export async function shareDirectory(directory: string, log: Logger): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o755 })
  const files = new HostFiles()
  const path = files.realPath(directory)
  const mounts = readMounts(files)
  const mount = mountOf(mounts, path)
  if (mount === undefined || mount.isShared) return
  if (mount.path !== path && mounts.some((other) => isBelow(other.path, path))) {
    log.warn(
      { directory: path, remedy: `end the pods and start again, or: mount --make-rshared ${mount.path}` },
      'the directory is not a shared mount, and what is mounted below it would be hidden by one',
    )
    return
  }
  const run = (...args: readonly string[]) =>
    runCommand({ command: 'mount', args, env: { PATH: hostPath }, timeoutMs: commandTimeoutMs })
  try {
    if (mount.path !== path) await run('--bind', path, path)
    await run('--make-rshared', path)
    log.info({ directory: path }, 'made a shared mount')
  } catch (error) {
    log.warn({ directory: path, reason: describeError(error) }, 'cannot make a shared mount of the directory')
  }
}
