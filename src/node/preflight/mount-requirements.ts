import { existsSync, statfsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { privateDirectoryMode } from '../../base/files.ts'
import type { AnyConfig } from '../../config/config.ts'
import { paths } from '../../config/paths.ts'
import type { HostFacts } from '../facts/host.ts'
import { mountOf } from '../facts/mounts.ts'
import type { Examination } from './examination.ts'
import { minimums } from './minimums.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'

export const gibibyte = 2 ** 30
const comfortableBytes = 4 * gibibyte
/** Below it the kubelet evicts pods (evictionHard in render/kubelet-config.ts). */
const evictionFraction = 0.05

/** File systems of other machines: SQLite's locks and containers' mounts fail on them in ways of their own. */
const networkTypes = ['nfs', 'nfs4', 'cifs', 'smb3', '9p', 'fuse.sshfs', 'ceph', 'glusterfs']

export function mountRequirements(examination: Examination): Requirement[] {
  return [
    fileSystem(examination),
    space(examination),
    kubeletDirectory(examination),
    propagation(examination),
    ...containerRoots(examination),
  ]
}

function fileSystem({ config, host }: Examination): Requirement {
  const name = 'data directory'
  const found = dataDirectory({ config, host })
  const mount = mountOf(host.mounts, config.dataDir)
  if (mount === undefined || found.state === 'missing') return found
  const where = `${config.dataDir} on ${mount.type}`
  if (mount.type === 'overlay' && config.snapshotter === 'overlayfs') {
    return missing(
      name,
      `${where}: one overlay cannot lie on another`,
      'use --snapshotter=native, or a --data-dir on a volume',
    )
  }
  if (mount.options.includes('nosuid') && config.snapshotter === 'native') {
    return warning(
      name,
      `${where}, mounted nosuid: sudo and the like do not work in containers of --snapshotter=native`,
      'mount it without nosuid, or choose another with --data-dir',
    )
  }
  return found
}

/** What every role asks of it: the artifact is unpacked there, and the datastore's file is in it. */
export function dataDirectory({
  config,
  host,
}: {
  config: Pick<AnyConfig, 'dataDir'>
  host: HostFacts
}): Requirement {
  const name = 'data directory'
  const mount = mountOf(host.mounts, config.dataDir)
  if (mount === undefined) return ok(name, config.dataDir)
  const where = `${config.dataDir} on ${mount.type}`
  if (mount.options.includes('noexec')) {
    return missing(
      name,
      `${where}, mounted noexec: nothing in it can be started`,
      'choose another with --data-dir',
    )
  }
  if (mount.options.includes('ro'))
    return missing(name, `${where}, read-only`, 'choose another with --data-dir')
  if (networkTypes.includes(mount.type)) {
    return missing(
      name,
      `${where}: the datastore needs a disk of this machine`,
      'choose another with --data-dir',
    )
  }
  if (mount.type === 'tmpfs')
    return warning(name, `${where}: all is lost at a reboot`, 'choose another with --data-dir')
  return ok(name, where)
}

function space({ config, files }: Examination): Requirement {
  const name = 'disk space'
  const { bavail, blocks, bsize } = statfsSync(nearestExisting(config.dataDir))
  const freeBytes = bavail * bsize
  const detail = `${(freeBytes / gibibyte).toFixed(1)} GiB free`
  // What is unpacked and imported already needs no more room.
  if (freeBytes < minimums.diskGibibytes * gibibyte && !files.exists(paths(config).database)) {
    return missing(name, detail, `free at least ${minimums.diskGibibytes} GiB`)
  }
  if (bavail / blocks < evictionFraction) {
    return warning(name, `${detail}, less than 5%: the kubelet will evict pods`, 'free some space')
  }
  if (freeBytes < comfortableBytes) return warning(name, detail, 'free some space before images fill it')
  return ok(name, detail)
}

export function nearestExisting(path: string): string {
  return existsSync(path) ? path : nearestExisting(dirname(path))
}

/** Volumes that are directories (emptyDir, projected, those of CSI) are seen in containers with the flags of this mount. */
function kubeletDirectory({ config: { kubeletRootDir }, host, files }: Examination): Requirement {
  const name = 'kubelet directory'
  const mount = mountOf(host.mounts, files.realPath(kubeletRootDir))
  if (mount === undefined) return ok(name, kubeletRootDir)
  const where = `${kubeletRootDir} on ${mount.type}`
  const remedy = 'mount it without that, or choose another with --kubelet-root-dir'
  if (mount.options.includes('ro')) return missing(name, `${where}, read-only`, remedy)
  const consequences = [
    ['noexec', 'programs in volumes of pods cannot be started'],
    ['nosuid', 'programs in volumes of pods get no rights by setuid'],
    ['nodev', 'devices in volumes of pods do not work'],
  ].filter(([flag = '']) => mount.options.includes(flag))
  if (consequences.length === 0) return ok(name, where)
  return warning(
    name,
    `${where}, mounted ${consequences.map(([flag]) => flag).join(', ')}: ${consequences.map(([, text]) => text).join('; ')}`,
    remedy,
  )
}

/** systemd makes / shared; without it nobody does. */
function propagation({ host, config }: Examination): Requirement {
  const name = 'mount propagation'
  if (mountOf(host.mounts, '/')?.isShared !== false) return ok(name, '/ is a shared mount')
  return warning(
    name,
    `/ is not a shared mount: pods that mount it with HostToContainer or Bidirectional do not start (${config.kubeletRootDir} is made shared by the server)`,
    'mount --make-rshared / (after each boot, before the server starts)',
  )
}

/** What a daemon with a strict umask left behind: the root directories of containers are for root alone. */
function containerRoots({ config, files }: Examination): Requirement[] {
  const snapshots = join(paths(config).containerdRoot, 'io.containerd.snapshotter.v1.overlayfs', 'snapshots')
  const closed = files
    .list(snapshots)
    .filter((id) => files.mode(join(snapshots, id, 'fs')) === privateDirectoryMode)
  if (closed.length === 0) return []
  return [
    warning(
      'container roots',
      `${closed.length} of ${snapshots}/*/fs have mode 0700, as a umask of 077 made them: containers that are not root's cannot read their files`,
      `delete the pods that they belong to, or: chmod 755 ${snapshots}/*/fs`,
    ),
  ]
}
