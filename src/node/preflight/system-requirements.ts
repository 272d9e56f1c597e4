import { existsSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { earliestClock } from '../../base/clock.ts'
import { mountOf } from '../facts/mounts.ts'
import type { Examination } from './examination.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'

const gibibyte = 2 ** 30
/** The unpacked artifact takes 0.5 GiB, images and a young cluster as much. */
const requiredBytes = 1 * gibibyte
const comfortableBytes = 4 * gibibyte
/** Below it the kubelet evicts pods (evictionHard in render/kubelet-config.ts). */
const evictionFraction = 0.05

/** util-linux, for the kubelet's volumes. */
const programs = ['mount', 'umount'] as const

/** File systems of other machines: SQLite's locks and containers' mounts fail on them in ways of their own. */
const networkTypes = ['nfs', 'nfs4', 'cifs', 'smb3', '9p', 'fuse.sshfs', 'ceph', 'glusterfs']

export function systemRequirements(examination: Examination): Requirement[] {
  return [
    root(examination),
    ...capabilities(examination),
    clock(examination),
    ...programs.map((program) => installed(examination, program)),
    fileSystem(examination),
    space(examination),
  ]
}

function root({ isRoot }: Examination): Requirement {
  return isRoot
    ? ok('root', 'yes')
    : missing('root', 'mounts, cgroups and networks need it', 'run as root (sudo)')
}

function capabilities({ host, isRoot }: Examination): Requirement[] {
  if (!isRoot) return []
  const { netAdmin, sysAdmin, sysResource } = host.capabilities
  const absent = [...(sysAdmin ? [] : ['CAP_SYS_ADMIN']), ...(netAdmin ? [] : ['CAP_NET_ADMIN'])]
  if (absent.length > 0) {
    return [missing('capabilities', `without ${absent.join(' and ')}`, 'run it privileged, or on the host')]
  }
  if (sysResource) return [ok('capabilities', 'all that are needed')]
  return [
    warning(
      'capabilities',
      'without CAP_SYS_RESOURCE: the components cannot be shielded from the out-of-memory killer, and are configured for that',
      'give the container or service CAP_SYS_RESOURCE',
    ),
  ]
}

function clock({ now }: Examination): Requirement {
  if (now >= earliestClock) return ok('clock', now.toISOString())
  return missing('clock', `${now.toISOString()} is in the past`, 'set the clock, or start a time service')
}

function installed({ host }: Examination, program: string): Requirement {
  const path = host.command(program)
  return path === undefined
    ? missing(program, 'not installed', 'install the package that has it (util-linux, mount)')
    : ok(program, path)
}

function fileSystem({ config, host }: Examination): Requirement {
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
  if (mount.type === 'overlay' && config.snapshotter === 'overlayfs') {
    return missing(
      name,
      `${where}: one overlay cannot lie on another`,
      'use --snapshotter=native, or a --data-dir on a volume',
    )
  }
  if (mount.type === 'tmpfs')
    return warning(name, `${where}: all is lost at a reboot`, 'choose another with --data-dir')
  return ok(name, where)
}

function space({ config }: Examination): Requirement {
  const name = 'disk space'
  const { bavail, blocks, bsize } = statfsSync(nearestExisting(config.dataDir))
  const freeBytes = bavail * bsize
  const detail = `${(freeBytes / gibibyte).toFixed(1)} GiB free`
  if (freeBytes < requiredBytes) return missing(name, detail, `free at least ${requiredBytes / gibibyte} GiB`)
  if (bavail / blocks < evictionFraction) {
    return warning(name, `${detail}, less than 5%: the kubelet will evict pods`, 'free some space')
  }
  if (freeBytes < comfortableBytes) return warning(name, detail, 'free some space before images fill it')
  return ok(name, detail)
}

function nearestExisting(path: string): string {
  return existsSync(path) ? path : nearestExisting(dirname(path))
}
