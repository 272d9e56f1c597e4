import { earliestClock } from '../../base/clock.ts'
import type { Examination } from './examination.ts'
import { minimums } from './minimums.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'

/** Each container, watch and connection takes some; the unit has 1,048,576. */
const openFilesLimit = 65_536
/** Beyond it the clock is wrong, or the certificates that this software makes end too early to be of use. */
const softwareLifeYears = 10

/** util-linux, for the kubelet's volumes. */
export const programs = ['mount', 'umount'] as const

export function systemRequirements(examination: Examination): Requirement[] {
  return [
    root(examination),
    ...capabilities(examination),
    clock(examination),
    ...programs.map((program) => installed(examination, program)),
    memory(examination),
    openFiles(examination),
    umask(examination),
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

export function clock({ now }: Pick<Examination, 'now'>): Requirement {
  const remedy = 'set the clock, or start a time service'
  if (now < earliestClock) return missing('clock', `${now.toISOString()} is in the past`, remedy)
  if (now.getUTCFullYear() > earliestClock.getUTCFullYear() + softwareLifeYears) {
    return warning('clock', `${now.toISOString()}: is that so? Certificates are made for this date`, remedy)
  }
  return ok('clock', now.toISOString())
}

function installed({ host }: Examination, program: string): Requirement {
  const path = host.command(program)
  return path === undefined
    ? missing(program, 'not installed', 'install the package that has it (util-linux, mount)')
    : ok(program, path)
}

function memory({ files }: Examination): Requirement {
  const name = 'memory'
  const kibibytes = Number(/^MemTotal:\s+(\d+) kB$/m.exec(files.read('/proc/meminfo') ?? '')?.[1])
  const gibibytes = kibibytes / 2 ** 20
  const detail = `${gibibytes.toFixed(1)} GiB`
  // The kernel keeps a part of what the machine has for itself.
  if (!(gibibytes < 0.9 * minimums.memoryGibibytes)) return ok(name, detail)
  return warning(
    name,
    `${detail}: little is left for pods`,
    `give the machine ${minimums.memoryGibibytes} GiB`,
  )
}

/** Node raises its own to the hard limit, and passes that on. */
function openFiles({ files }: Examination): Requirement {
  const name = 'open files'
  const hard =
    /^Max open files\s+\S+\s+(\S+)/m.exec(files.read('/proc/self/limits') ?? '')?.[1] ?? 'unlimited'
  if (!(Number(hard) < openFilesLimit)) return ok(name, hard)
  return warning(
    name,
    `at most ${hard} for each process: many pods use them up`,
    'LimitNOFILE=1048576 in a unit, `ulimit -Hn 1048576` in a shell of root',
  )
}

/** The daemon has one of its own; only what is started by hand in the data directory is of that of its shell. */
function umask({ umask: mask }: Examination): Requirement {
  const text = mask.toString(8).padStart(4, '0')
  return ok('umask', mask === 0o022 ? text : `${text} here; the daemon sets 0022`)
}
