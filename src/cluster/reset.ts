import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { silentLogger } from '../base/logger.ts'
import { answers } from '../base/unix-socket.ts'
import type { AnyConfig, KubeletConfig } from '../config/config.ts'
import { criDockerdSocket, paths as pathsOf } from '../config/paths.ts'
import { refuseWhileRunning } from '../control/client.ts'
import { holdResetLock, resetLockPath } from '../control/reset-lock.ts'
import { noNetwork } from '../network/desired.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { readMounts } from '../node/facts/mounts.ts'
import { runFileStep } from '../node/reset/file-steps.ts'
import { keepForeignRules } from '../node/reset/firewall-rules.ts'
import { describeHolders } from '../node/reset/holders.ts'
import { resetPlan } from '../node/reset/plan.ts'
import type { ResetStep } from '../node/reset/steps.ts'
import { removeFromKubeconfig } from '../pki/user-kubeconfig.ts'
import type { Payload } from '../payload/payload.ts'
import { holdDatabase } from '../storage/embedded.ts'
import { runCommand } from '../supervisor/spawn.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { removeDockerPods } from './docker-pods.ts'
import { endFormerProcesses } from './former-processes.ts'
import { removePods } from './pods.ts'

const commandTimeoutMs = 60_000
const unmountAttempts = 10
const unmountIntervalMs = 300

/** Takes a step, and goes on where it fails. */
type Take = (description: string, step: () => Promise<void>) => Promise<void>

interface ResetOptions {
  readonly payload: Payload
  /** Told of each step before it is taken. */
  readonly announce: (line: string) => void
}

/**
 * Removes what the daemon made on this machine. A step that fails spares the others; the error names
 * all that did, and a second call takes up what was left.
 */
export async function resetNode(config: AnyConfig, { payload, announce }: ResetOptions): Promise<void> {
  const paths = pathsOf(config)
  await using _lock = await holdResetLock(resetLockPath(config.dataDir), silentLogger)
  // Once more, under the lock: one may have started since the command was given.
  await refuseWhileRunning(paths.controlSocket, 'reset')
  using _database = holdDatabase(paths.database, payload.sqliteAddon)
  await endFormerProcesses(paths, { payload, log: silentLogger })
  const failures: string[] = []
  const take = async (description: string, step: () => Promise<void>): Promise<void> => {
    announce(description)
    await step().catch((error: unknown) => {
      failures.push(describeError(error))
      announce(`  failed: ${describeError(error)}`)
    })
  }
  if (config.role === 'kubelet') await endPodsOfOthers(config, { payload, take })
  for (const step of await resetPlan(config)) await take(step.description, () => runStep(step, payload))
  if (failures.length > 0) {
    throw new AppError(`cannot remove everything: ${failures.join('; ')}`, {
      code: 'RESET_INCOMPLETE',
      remedy: 'mend what is named and run `k8s reset` again',
    })
  }
}

/** Those in a runtime that is not the daemon's, which nothing ends with it. */
async function endPodsOfOthers(
  config: KubeletConfig,
  { payload, take }: Pick<ResetOptions, 'payload'> & { take: Take },
): Promise<void> {
  const { containerRuntime, containerRuntimeEndpoint: runtimeSocket, dockerEndpoint, kubeletRootDir } = config
  if (runtimeSocket !== undefined) {
    const given = { payload, runtimeSocket, isOwnRuntime: false, log: silentLogger }
    await take(`end the pods in ${runtimeSocket}`, () =>
      removePods({ ...given, signal: new AbortController().signal }),
    )
    return
  }
  const files = new HostFiles()
  if (containerRuntime !== 'docker' && !files.isThere(pathsOf(config).criDockerdRoot)) return
  const uids = new Set(files.list(join(kubeletRootDir, 'pods')))
  await take(`end the pods in the Docker at ${dockerEndpoint}`, () => removeDockerPods(dockerEndpoint, uids))
  // Another cri-dockerd may serve by now.
  if (!files.isThere(criDockerdSocket) || (await answers({ path: criDockerdSocket }))) return
  await take(`remove ${criDockerdSocket}`, () => rm(criDockerdSocket, { force: true }))
}

async function runStep(step: ResetStep, payload: Payload): Promise<void> {
  switch (step.kind) {
    case 'command':
      await run(step.command, step.args)
      return
    case 'link':
      await run(join(payload.cniBinDir, 'cni'), ['link-delete', step.name])
      return
    case 'network': {
      const { stdout } = await run(
        join(payload.cniBinDir, 'cni'),
        ['network-apply'],
        JSON.stringify(noNetwork),
      )
      const { failed } = JSON.parse(stdout) as { failed: readonly { reason: string }[] }
      if (failed.length > 0) throw new Error(failed.map(({ reason }) => reason).join('; '))
      return
    }
    case 'address':
      await run(join(payload.cniBinDir, 'cni'), ['address-release', step.address])
      return
    case 'rules': {
      const { stdout } = await run(step.save, [])
      const foreign = keepForeignRules(stdout)
      if (foreign !== undefined) await run(step.restore, [], foreign)
      return
    }
    case 'kubeconfig':
      return removeFromKubeconfig(step)
    case 'unmount':
      return unmount(step.path)
    case 'keep':
      return
    case 'kill':
    case 'cgroup':
    case 'remove':
    case 'empty':
    case 'rmdir':
      return runFileStep(step)
  }
}

/** A process that was killed lets go of its mounts a moment after its end. */
async function unmount(path: string): Promise<void> {
  const files = new HostFiles()
  for (let attempt = 1; ; attempt++) {
    // It went with another one, to which it was propagated.
    if (!readMounts(files).some((mount) => mount.path === path)) return
    try {
      await run('umount', [path])
      return
    } catch (cause) {
      if (attempt < unmountAttempts && /busy/.test(describeError(cause))) {
        await sleep(unmountIntervalMs)
        continue
      }
      const holders = describeHolders(files, path)
      throw new AppError(
        `cannot unmount ${path}${holders && `, which is in use by ${holders}`}`,
        { code: 'RESET_UNMOUNT', path },
        { cause },
      )
    }
  }
}

function run(command: string, args: readonly string[], input?: string) {
  return runCommand({
    command,
    args,
    env: { PATH: hostPath },
    timeoutMs: commandTimeoutMs,
    ...(input !== undefined && { input }),
  })
}
