/*
 * `k8s reset` in steps: resetPlan looks at what is there and says what is to be done, in order;
 * whoever runs it starts the commands and gives the rest to runFileStep. A step that finds nothing to do is fine:
 *
 *    processes -> mounts -> links -> rules -> cgroups -> files
 */
import { readlink } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type AnyConfig,
  type Config,
  hasNode,
  type KubeletConfig,
  type MachineConfig,
} from '../../config/config.ts'
import { paths } from '../../config/paths.ts'
import { schema } from '../../config/schema.ts'
import { detectHost, type HostFacts } from '../facts/host.ts'
import { HostFiles } from '../facts/host-files.ts'
import { readHeldAddress, readNodeId } from '../facts/node-record.ts'
import { isBelow, isSelfBind, readMounts } from '../facts/mounts.ts'
import { cniResultsDir } from '../firewall/port-mappings.ts'
import { bridgeName, networkName } from '../render/cni-config.ts'
import { overlayDevice } from '../render/overlay.ts'
import { ruleSteps } from './firewall-rules.ts'
import { readPodProcesses } from './pod-processes.ts'
import type { ResetStep } from './steps.ts'

/** The kubelet's are hard-coded but for podLogsDir. */
const podLogsDir = '/var/log/pods'
const containerLogsDir = '/var/log/containers'

/** Made by what we start where they are missing, and shared with others: what is in them goes first. */
const sharedDirs = [
  cniResultsDir,
  '/var/lib/cni',
  '/run/containerd/s',
  '/run/containerd',
  containerLogsDir,
  podLogsDir,
] as const

/** What the kubelet makes (pkg/kubelet/kubeletconfig/defaults.go, and who keeps a state). */
const kubeletEntries =
  /^(checkpoints|device-plugins|image_manager|pki|plugin-containers|plugins|plugins_registry|pod-resources|pods|pods-api|.+_state)$/

/** What the daemon keeps in its data directory. Whatever else is there is someone's own. */
export const dataEntries = [
  'admin.kubeconfig',
  'containerd',
  'cri-dockerd',
  'data',
  'db',
  'etc',
  'etcd',
  'images',
  'joining.key',
  'kubeconfig',
  'manifests',
  'cluster.json',
  'node.json',
  'pki',
  'replaced',
  'restore',
  'restore.preparing',
  'run',
  'snapshots',
  'storage',
] as const

/** Those that nobody but the daemon puts anything into. */
const emptiedEntries: readonly (typeof dataEntries)[number][] = [
  'containerd',
  'cri-dockerd',
  'data',
  'db',
  'etcd',
  'pki',
  'run',
]

/** Looks at this machine and changes nothing. The daemon must not run. */
export async function resetPlan(
  config: AnyConfig,
  { root = '/' }: { root?: string } = {},
): Promise<ResetStep[]> {
  const files = new HostFiles(root)
  // What a role without pods has made is all in its data directory.
  if (!hasNode(config)) return dataSteps(config, files)
  const host = detectHost({ root })
  return [
    ...processSteps(config, files),
    ...mountSteps(config, files, host),
    ...linkSteps(files),
    ...networkSteps(config, files),
    ...addressSteps(config, files),
    ...ruleSteps(host),
    ...cgroupSteps(files, host),
    ...(await fileSteps(config, files)),
  ]
}

/** Containers are killed with their shims, which would report their end to a containerd that is gone. */
function processSteps(config: MachineConfig, files: HostFiles): ResetStep[] {
  const found = readPodProcesses(files, paths(config).containerdSocket)
  return found.map(({ pid, startTicks, command }) => ({
    kind: 'kill',
    description: `kill ${command} (${pid})`,
    pid,
    startTicks,
  }))
}

/** The last one first: it may be mounted on what an earlier one brought. The kernel lists paths without links. */
function mountSteps(config: MachineConfig, files: HostFiles, { mounts }: HostFacts): ResetStep[] {
  const { runDir, containerdRoot } = paths(config)
  const { kubeletRootDir } = config
  const dirs = [kubeletRootDir, runDir, containerdRoot].map((dir) => files.realPath(dir))
  const trees = [...kubeletPaths(config, files), runDir, containerdRoot].map((dir) => files.realPath(dir))
  const isOurs = (path: string) =>
    dirs.includes(path) ? isSelfBind(mounts, path) : trees.some((tree) => isBelow(path, tree))
  const ours = mounts.filter(({ path }) => isOurs(path))
  return ours.toReversed().map(({ path }) => ({ kind: 'unmount', description: `unmount ${path}`, path }))
}

/** The host's ends of the pods' interfaces went with the namespaces that were unmounted. */
function linkSteps(files: HostFiles): ResetStep[] {
  // /sys may show the interfaces of another network namespace; this list is always one's own.
  if (!new RegExp(`^ *${bridgeName}:`, 'm').test(files.read('/proc/net/dev') ?? '')) return []
  return [{ kind: 'link', description: `delete the network interface ${bridgeName}`, name: bridgeName }]
}

function networkSteps(config: Pick<AnyConfig, 'dataDir'>, files: HostFiles): ResetStep[] {
  const devices = files.read('/proc/net/dev') ?? ''
  if (!files.exists(paths(config).networkMark) && !new RegExp(`^ *${overlayDevice}:`, 'm').test(devices))
    return []
  return [{ kind: 'network', description: "remove what leads to other nodes' pods" }]
}

function addressSteps(config: MachineConfig, files: HostFiles): ResetStep[] {
  const address = readHeldAddress(files.path(paths(config).heldAddress))
  if (address === undefined) return []
  return [{ kind: 'address', description: `take the address ${address} from lo`, address }]
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

async function fileSteps(
  config: MachineConfig & Pick<Partial<KubeletConfig>, 'manifests'>,
  files: HostFiles,
): Promise<ResetStep[]> {
  const { containerdState } = paths(config)
  const outside = [
    ...shimSockets(files, containerdState),
    ...files.list(podLogsDir).map((name) => join(podLogsDir, name)),
    ...(await linksInto(files, containerLogsDir, podLogsDir)),
    ...files
      .list(cniResultsDir)
      .filter((name) => name.startsWith(`${networkName}-`))
      .map((name) => join(cniResultsDir, name)),
  ]
  return [
    ...kubeconfigSteps(config, files),
    ...removeIfThere(files, outside),
    ...kubeletSteps(config, files),
    ...volumeSteps(config, files),
    ...dataSteps(config, files, [
      ...sharedDirs,
      ...(config.manifests === undefined ? [] : [config.manifests]),
    ]),
  ]
}

/** The usual directory is the kubelet's by its name; in another one, such as the root of a disk, somebody may keep more. */
function kubeletPaths({ kubeletRootDir }: MachineConfig, files: HostFiles): string[] {
  if (kubeletRootDir === schema['kubelet-root-dir'].default) return [kubeletRootDir]
  const names = files.list(kubeletRootDir).filter((name) => kubeletEntries.test(name))
  return names.toSorted().map((name) => join(kubeletRootDir, name))
}

function kubeletSteps(config: MachineConfig, files: HostFiles): ResetStep[] {
  const { kubeletRootDir } = config
  const own = kubeletPaths(config, files)
  const steps = thereOf(files, own).flatMap((path) => removalSteps(files, path, true))
  if (own.includes(kubeletRootDir)) return steps
  const others = files.list(kubeletRootDir).filter((name) => !kubeletEntries.test(name))
  if (others.length === 0) return [...steps, ...emptySteps(files, [kubeletRootDir])]
  const description = `leave in ${kubeletRootDir} what is not the kubelet's: ${others.toSorted().join(', ')}`
  return [...steps, { kind: 'keep', description }]
}

/** Other clusters may be in it. */
function kubeconfigSteps(
  { writeKubeconfig: path, dataDir }: MachineConfig & Pick<Partial<Config>, 'writeKubeconfig'>,
  files: HostFiles,
): ResetStep[] {
  if (path === undefined || !files.isThere(path)) return []
  const id = readNodeId(files.path(paths({ dataDir }).nodeRecord))
  return [
    { kind: 'kubeconfig', description: `take this cluster out of the kubeconfig ${path}`, path, dataDir, id },
  ]
}

/** The data directory, and the directories that go when they are empty. */
function dataSteps(
  config: Pick<AnyConfig, 'dataDir'>,
  files: HostFiles,
  shared: readonly string[] = [],
): ResetStep[] {
  const { dataDir, runDir } = paths(config)
  const all = [runDir, ...dataEntries.map((name) => join(dataDir, name))]
  const own = [runDir, ...emptiedEntries.map((name) => join(dataDir, name))]
  return [
    ...thereOf(files, all).flatMap((path) => removalSteps(files, path, own.includes(path))),
    ...emptySteps(files, [...shared, dataDir]),
  ]
}

/** Who has named a directory for volumes keeps them there. */
function volumeSteps(
  config: MachineConfig & Partial<Pick<Config, 'localStoragePath'>>,
  files: HostFiles,
): ResetStep[] {
  const { localStoragePath: path } = config
  if (path === undefined || isBelow(path, paths(config).storageDir) || volumesIn(files, path) === '')
    return []
  return [{ kind: 'keep', description: `leave in ${path} the data of ${volumesIn(files, path)}` }]
}

/** "2 volumes" that go with the data directory; '' where there is none, or they lie on a disk of their own, which stays. */
export function lostVolumes({ dataDir }: Pick<AnyConfig, 'dataDir'>, files = new HostFiles()): string {
  const { storageDir } = paths({ dataDir })
  const isLost = !files.isLink(storageDir) && !isMounted(files, storageDir)
  return isLost ? volumesIn(files, storageDir) : ''
}

function volumesIn(files: HostFiles, path: string): string {
  const count = files.list(path).filter((name) => name.startsWith('pvc-')).length
  return count === 0 ? '' : count === 1 ? 'a volume' : `${count} volumes`
}

function emptySteps(files: HostFiles, some: readonly string[]): ResetStep[] {
  const found = thereOf(files, some).filter((path) => !files.isLink(path))
  return found.map((path) => ({ kind: 'rmdir', description: `remove ${path}, if it is empty`, path }))
}

function removeIfThere(files: HostFiles, some: readonly string[]): ResetStep[] {
  return thereOf(files, some).map((path) => ({ kind: 'remove', description: `remove ${path}`, path }))
}

function thereOf(files: HostFiles, some: readonly string[]): string[] {
  return [...new Set(some)].filter((path) => files.isThere(path))
}

function isMounted(files: HostFiles, path: string): boolean {
  const target = files.realPath(path)
  return readMounts(files).some((mount) => mount.path === target)
}

/**
 * A link, or a file system that is mounted there, is somebody's own, who moved a directory to another disk: what is ours
 * alone goes from there; it stays, and so does what others may have put there, too.
 */
function removalSteps(files: HostFiles, path: string, isOursAlone: boolean): ResetStep[] {
  const target = files.realPath(path)
  if (files.isLink(path)) {
    if (isOursAlone)
      return [{ kind: 'empty', description: `empty ${target}, to which ${path} leads`, path: target }]
    return [{ kind: 'remove', description: `remove the link ${path}; ${target} stays`, path }]
  }
  if (!isOursAlone && isMounted(files, path))
    return [{ kind: 'keep', description: `leave ${path}, where something is mounted, as it is` }]
  const volumes = volumesIn(files, path)
  return [
    { kind: 'remove', description: `remove ${path}${volumes && `, with the data of ${volumes}`}`, path },
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
