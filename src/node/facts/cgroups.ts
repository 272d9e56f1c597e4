import type { HostFiles } from './host-files.ts'
import type { Mount } from './mounts.ts'

const cgroupRoot = '/sys/fs/cgroup'

/**
 * v1: a hierarchy for each controller; hybrid: the same, beside a v2 hierarchy without controllers, in
 * which runc makes cgroups too; v2: one hierarchy.
 */
type CgroupLayout = 'v1' | 'hybrid' | 'v2' | 'none'

export interface Cgroups {
  readonly layout: CgroupLayout
  /** As the kubelet and runc see it (libcontainer/cgroups: IsCgroup2UnifiedMode). */
  readonly version: 1 | 2
  readonly controllers: readonly string[]
  /** The directories below which a cgroup can be made: one of v2, one for each hierarchy of v1. */
  readonly hierarchies: readonly string[]
}

export function readCgroups(files: HostFiles, mounts: readonly Mount[]): Cgroups {
  if (mounts.findLast(({ path }) => path === cgroupRoot)?.type === 'cgroup2') {
    const controllers = (files.read(`${cgroupRoot}/cgroup.controllers`) ?? '').trim().split(/\s+/)
    return { layout: 'v2', version: 2, controllers: controllers.filter(Boolean), hierarchies: [cgroupRoot] }
  }
  const legacy = mounts.filter(({ path, type }) => type === 'cgroup' && path.startsWith(`${cgroupRoot}/`))
  const unified = mounts.filter(({ path, type }) => type === 'cgroup2' && path.startsWith(`${cgroupRoot}/`))
  return {
    layout: legacy.length === 0 ? 'none' : unified.length > 0 ? 'hybrid' : 'v1',
    version: 1,
    controllers: enabledControllers(files).filter((name) =>
      legacy.some(({ options }) => options.includes(name)),
    ),
    hierarchies: [...new Set([...legacy, ...unified].map(({ path }) => path))],
  }
}

/** The last column of /proc/cgroups is 0 for what the kernel's command line turned off. */
function enabledControllers(files: HostFiles): string[] {
  const lines = (files.read('/proc/cgroups') ?? '').split('\n').filter((line) => !line.startsWith('#'))
  return lines.flatMap((line) => {
    const [name, , , enabled] = line.split(/\s+/)
    return name && enabled === '1' ? [name] : []
  })
}
