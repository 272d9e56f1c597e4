/*
 * `k8s reset` in steps: resetPlan looks at what is there and says what is to be done, in order;
 * whoever runs it starts the commands and gives the rest to runFileStep. A step that finds nothing to do is fine:
 *
 *    processes -> mounts -> links -> rules -> cgroups -> files
 */
import { lstatSync } from 'node:fs'
import { readdir, readlink, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, errorCode } from '../base/errors.ts'
import type { Config } from '../config/config.ts'
import { paths } from '../config/paths.ts'
import { bridgeName, networkName } from './cni.ts'
import { detectHost, type HostFacts } from './detect.ts'
import { HostFiles } from './host-files.ts'
import { isBelow, readMounts } from './mounts.ts'
import { readPodProcesses, readStartTime } from './pod-processes.ts'

/** A program to start; a failure is reported and spares the other steps. */
export interface CommandStep {
  readonly kind: 'command'
  readonly description: string
  readonly command: string
  readonly args: readonly string[]
}

/** A network interface to delete. */
export interface LinkStep {
  readonly kind: 'link'
  readonly description: string
  readonly name: string
}

/** `save` prints the rules, `keepForeignRules` drops ours, `restore` reads them from its standard input. */
export interface RulesStep {
  readonly kind: 'rules'
  readonly description: string
  readonly save: string
  readonly restore: string
}

export type FileStep =
  /** Sent SIGKILL and awaited, if it is still the process that the plan saw. */
  | { readonly kind: 'kill'; readonly description: string; readonly pid: number; readonly startTime: string }
  /** A cgroup with those below it. */
  | { readonly kind: 'cgroup'; readonly description: string; readonly path: string }
  /** A file or a tree; refused while something is mounted in it. */
  | { readonly kind: 'remove'; readonly description: string; readonly path: string }
  /** A directory, if it is empty by then. */
  | { readonly kind: 'rmdir'; readonly description: string; readonly path: string }

export type ResetStep = CommandStep | LinkStep | RulesStep | FileStep

/** Tables of kube-proxy (pkg/proxy/nftables) and of the CNI plugins portmap and bridge. */
const nftTables = [
  'ip kube-proxy',
  'ip6 kube-proxy',
  'ip cni_hostport',
  'ip6 cni_hostport',
  'inet cni_plugins_masquerade',
] as const

/** The kubelet's are hard-coded but for podLogsDir; libcni's too. */
const podLogsDir = '/var/log/pods'
const containerLogsDir = '/var/log/containers'
const cniResultsDir = '/var/lib/cni/results'

/** Made by what we start where they are missing, and shared with others: what is in them goes first. */
const sharedDirs = [
  cniResultsDir,
  '/var/lib/cni',
  '/run/containerd/s',
  '/run/containerd',
  containerLogsDir,
  podLogsDir,
] as const

/** What the daemon keeps in its data directory. Whatever else is there is someone's own. */
const dataEntries = [
  'admin.kubeconfig',
  'containerd',
  'data',
  'db',
  'etc',
  'images',
  'kubeconfig',
  'manifests',
  'pki',
  'replaced',
  'restore',
  'restore.preparing',
  'run',
  'snapshots',
] as const

const killLimitMs = 10_000
const killPollMs = 10
const cgroupLimitMs = 2_000

/** Looks at this machine and changes nothing. The daemon must not run. */
export async function resetPlan(
  config: Config,
  { root = '/' }: { root?: string } = {},
): Promise<ResetStep[]> {
  const files = new HostFiles(root)
  const host = detectHost({ root })
  return [
    ...processSteps(config, files),
    ...mountSteps(config, host),
    ...linkSteps(files),
    ...ruleSteps(host),
    ...cgroupSteps(files, host),
    ...(await fileSteps(config, files)),
  ]
}

/** Containers are killed with their shims, which would report their end to a containerd that is gone. */
function processSteps(config: Config, files: HostFiles): ResetStep[] {
  const found = readPodProcesses(files, paths(config).containerdSocket)
  return found.map(({ pid, startTime, command }) => ({
    kind: 'kill',
    description: `kill ${command} (${pid})`,
    pid,
    startTime,
  }))
}

/** The last one first: it may be mounted on what an earlier one brought. */
function mountSteps(config: Config, { mounts }: HostFacts): ResetStep[] {
  const { runDir, containerdRoot } = paths(config)
  const ours = mounts.filter(({ path }) =>
    [config.kubeletRootDir, runDir, containerdRoot].some((dir) => path !== dir && isBelow(path, dir)),
  )
  return ours.toReversed().map(({ path }) => ({
    kind: 'command',
    description: `unmount ${path}`,
    command: 'umount',
    args: [path],
  }))
}

/** The host's ends of the pods' interfaces went with the namespaces that were unmounted. */
function linkSteps(files: HostFiles): ResetStep[] {
  // /sys may show the interfaces of another network namespace; this list is always one's own.
  if (!new RegExp(`^ *${bridgeName}:`, 'm').test(files.read('/proc/net/dev') ?? '')) return []
  return [{ kind: 'link', description: `delete the network interface ${bridgeName}`, name: bridgeName }]
}

/** Both kinds: the cluster may have run in the other mode before. */
function ruleSteps({ command, kernel }: HostFacts): ResetStep[] {
  const steps: ResetStep[] = []
  if (command('nft') !== undefined && kernel.feature('nftables') !== 'absent') {
    steps.push(
      ...nftTables.map((table) => ({
        kind: 'command' as const,
        description: `delete the nftables table ${table}`,
        command: 'nft',
        // Added first, as a table that is not there cannot be deleted before nft 1.0.8 (destroy).
        args: [`add table ${table}; delete table ${table}`],
      })),
    )
  }
  for (const tool of ['iptables', 'ip6tables']) {
    if (command(`${tool}-save`) === undefined || command(`${tool}-restore`) === undefined) continue
    const description = `take the chains KUBE-* and CNI-* out of ${tool}`
    steps.push({ kind: 'rules', description, save: `${tool}-save`, restore: `${tool}-restore` })
  }
  return steps
}

/**
 * The output of iptables-save without the chains of Kubernetes and CNI and the rules that lead to
 * them; undefined when there are none, so that nothing need be restored.
 */
export function keepForeignRules(saved: string): string | undefined {
  const lines = saved.split('\n')
  const foreign = lines.filter((line) => !/(^:|\s)(KUBE|CNI)-/.test(line))
  return foreign.length === lines.length ? undefined : foreign.join('\n')
}

function cgroupSteps(files: HostFiles, { cgroups }: HostFacts): ResetStep[] {
  const steps: ResetStep[] = []
  const slices = cgroups.hierarchies.map((hierarchy) => `${hierarchy}/kubepods.slice`)
  if (slices.some((path) => files.exists(path))) {
    steps.push({
      kind: 'command',
      description: 'stop the slice kubepods.slice',
      command: 'systemctl',
      args: ['stop', 'kubepods.slice'],
    })
  }
  const groups = cgroups.hierarchies.flatMap((hierarchy) =>
    ['kubepods', 'kubepods.slice'].map((name) => `${hierarchy}/${name}`),
  )
  const found = groups.filter((path) => files.exists(path))
  return [
    ...steps,
    ...found.map((path) => ({ kind: 'cgroup' as const, description: `remove the cgroup ${path}`, path })),
  ]
}

async function fileSteps(config: Config, files: HostFiles): Promise<ResetStep[]> {
  const { dataDir, runDir, containerdState } = paths(config)
  const outside = [
    ...shimSockets(files, containerdState),
    ...(config.writeKubeconfig === undefined ? [] : [config.writeKubeconfig]),
    ...files.list(podLogsDir).map((name) => join(podLogsDir, name)),
    ...(await linksInto(files, containerLogsDir, podLogsDir)),
    ...files
      .list(cniResultsDir)
      .filter((name) => name.startsWith(`${networkName}-`))
      .map((name) => join(cniResultsDir, name)),
  ]
  const trees = [config.kubeletRootDir, runDir, ...dataEntries.map((name) => join(dataDir, name))]
  const removed = [...new Set([...outside, ...trees])].filter((path) => isThere(files.path(path)))
  const steps: ResetStep[] = removed.map((path) => ({ kind: 'remove', description: `remove ${path}`, path }))
  const shared = [...sharedDirs, dataDir].filter((path) => isThere(files.path(path)))
  return [
    ...steps,
    ...shared.map((path) => ({
      kind: 'rmdir' as const,
      description: `remove ${path}, if it is empty`,
      path,
    })),
  ]
}

/** Named by a digest in /run/containerd/s, so the bundles tell which are ours. */
function shimSockets(files: HostFiles, containerdState: string): string[] {
  const bundles = join(containerdState, 'io.containerd.runtime.v2.task', 'k8s.io')
  return files.list(bundles).flatMap((id) => {
    const bootstrap =
      files.read(join(bundles, id, 'bootstrap.json')) ?? files.read(join(bundles, id, 'address')) ?? ''
    const socket = /unix:\/\/(\/run\/containerd\/s\/[0-9a-f]+)/.exec(bootstrap)?.[1]
    return socket === undefined ? [] : [socket]
  })
}

async function linksInto(files: HostFiles, directory: string, target: string): Promise<string[]> {
  const links = await Promise.all(
    files.list(directory).map(async (name) => {
      const path = join(directory, name)
      const to = await readlink(files.path(path)).catch(() => '')
      return isBelow(to, target) ? path : undefined
    }),
  )
  return links.filter((path) => path !== undefined)
}

/** Runs a step that starts no program. Repeatable; throws an AppError that says what was left. */
export async function runFileStep(step: FileStep, { root = '/' }: { root?: string } = {}): Promise<void> {
  const files = new HostFiles(root)
  switch (step.kind) {
    case 'kill':
      return killIfSame(files, step)
    case 'cgroup':
      return removeCgroup(files.path(step.path))
    case 'remove':
      return removeTree(files, step.path)
    case 'rmdir':
      return removeIfEmpty(files.path(step.path))
  }
}

/** Returns when it is gone: until then its mounts and its cgroup are in use. */
async function killIfSame(
  files: HostFiles,
  { pid, startTime }: { pid: number; startTime: string },
): Promise<void> {
  const deadline = performance.now() + killLimitMs
  while (readStartTime(files, pid) === startTime) {
    if (performance.now() > deadline) {
      throw new AppError(`cannot end the process ${pid}`, {
        code: 'RESET_PROCESS',
        pid,
        remedy:
          'it hangs in the kernel (a network file system that is gone?): reboot and run `k8s reset` again',
      })
    }
    sendKill(pid)
    await sleep(killPollMs)
  }
}

function sendKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (cause) {
    if (errorCode(cause) !== 'ESRCH') throw cause
  }
}

/** From the leaves up: a cgroup directory can be removed when it has neither processes nor children. */
async function removeCgroup(path: string): Promise<void> {
  if (!isThere(path)) return
  const entries = await readdir(path, { withFileTypes: true })
  for (const entry of entries) if (entry.isDirectory()) await removeCgroup(join(path, entry.name))
  const deadline = performance.now() + cgroupLimitMs
  for (;;) {
    try {
      return await rmdir(path)
    } catch (cause) {
      // A process that was killed leaves its cgroup a moment after it ended.
      if (errorCode(cause) !== 'EBUSY' || performance.now() > deadline) throw cause
    }
    await sleep(killPollMs)
  }
}

/** What is mounted there may be the only copy of someone's data. */
async function removeTree(files: HostFiles, path: string): Promise<void> {
  const mounted = readMounts(files).filter((mount) => mount.path !== path && isBelow(mount.path, path))
  if (mounted.length > 0) {
    throw new AppError(`cannot remove ${path}: ${mounted[0]?.path} is still mounted`, {
      code: 'RESET_MOUNTED',
      path,
      remedy: 'end what uses the mount, unmount it and run `k8s reset` again',
    })
  }
  try {
    await rm(files.path(path), { recursive: true, force: true })
  } catch (cause) {
    // A file system of its own is mounted at the path: it is empty now, and stays.
    if (errorCode(cause) !== 'EBUSY') throw cause
  }
}

async function removeIfEmpty(path: string): Promise<void> {
  try {
    await rmdir(path)
  } catch (cause) {
    if (!['ENOENT', 'ENOTEMPTY', 'EBUSY'].includes(errorCode(cause) ?? '')) throw cause
  }
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined
}
