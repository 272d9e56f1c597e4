import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { parseMask } from '../../base/proc.ts'
import { type Cgroups, readCgroups } from './cgroups.ts'
import { HostFiles } from './host-files.ts'
import { type Kernel, readKernel } from './kernel.ts'
import { type Mount, readMounts } from './mounts.ts'
import { chooseResolvConf, type ResolvConf } from './resolv-conf.ts'

/** capability.h of Linux. */
const capabilities = { netAdmin: 12, sysAdmin: 21, sysResource: 24 } as const

/** Debian's PATH of root; a service's own may be shorter. */
const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** What kube-proxy writes for its limits (pkg/proxy/conntrack/sysctls.go). */
const conntrackLimits = [
  '/proc/sys/net/netfilter/nf_conntrack_max',
  '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established',
  '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait',
  '/sys/module/nf_conntrack/parameters/hashsize',
]

export interface HostFacts {
  readonly kernel: Kernel
  readonly mounts: readonly Mount[]
  readonly cgroups: Cgroups
  /** systemd is process 1 (sd_booted(3)). */
  readonly isSystemd: boolean
  readonly capabilities: Readonly<Record<keyof typeof capabilities, boolean>>
  readonly isUserNamespace: boolean
  readonly canSetConntrack: boolean
  readonly hasSwap: boolean
  readonly defaultRoute: { readonly interface: string; readonly mtu: number | undefined } | undefined
  readonly resolvConf: ResolvConf
  /** The path of a program, as a shell would find it. */
  readonly command: (name: string) => string | undefined
}

/** Looks; changes and starts nothing. A few milliseconds. */
export function detectHost({
  root = '/',
  path = `${process.env['PATH'] ?? ''}${delimiter}${systemPath}`,
}: {
  root?: string
  path?: string
} = {}): HostFacts {
  const files = new HostFiles(root)
  const mounts = readMounts(files)
  return {
    kernel: readKernel(files),
    mounts,
    cgroups: readCgroups(files, mounts),
    isSystemd: files.exists('/run/systemd/system'),
    capabilities: readCapabilities(files),
    isUserNamespace: readsAsUserNamespace(files),
    canSetConntrack: conntrackLimits.every((limit) => files.isWritable(limit)),
    hasSwap: (files.read('/proc/swaps') ?? '').trim().split('\n').length > 1,
    defaultRoute: readDefaultRoute(files),
    resolvConf: chooseResolvConf(files),
    command: (name) => findCommand(name, path),
  }
}

function readCapabilities(files: HostFiles): HostFacts['capabilities'] {
  const effective = parseMask(files.read('/proc/self/status') ?? '', 'CapEff')
  const has = (bit: number) => ((effective >> BigInt(bit)) & 1n) === 1n
  return {
    netAdmin: has(capabilities.netAdmin),
    sysAdmin: has(capabilities.sysAdmin),
    sysResource: has(capabilities.sysResource),
  }
}

/** The first user namespace maps every id to itself (user_namespaces(7)). */
function readsAsUserNamespace(files: HostFiles): boolean {
  const map = files.read('/proc/self/uid_map')
  return map !== undefined && !/^\s*0\s+0\s+4294967295\s*$/.test(map)
}

/** /proc/net/route: addresses in hex; destination and mask 0 are the default. */
function readDefaultRoute(files: HostFiles): HostFacts['defaultRoute'] {
  const rows = (files.read('/proc/net/route') ?? '').split('\n').slice(1)
  const routes = rows.flatMap((row) => {
    const [name, destination, , , , , metric, mask] = row.split('\t').map((cell) => cell.trim())
    return name && destination === '00000000' && mask === '00000000' ? [{ name, metric: Number(metric) }] : []
  })
  const best = routes.sort((a, b) => a.metric - b.metric)[0]
  if (best === undefined) return undefined
  const mtu = Number(files.read(`/sys/class/net/${best.name}/mtu`))
  return { interface: best.name, mtu: mtu > 0 ? mtu : undefined }
}

function findCommand(name: string, path: string): string | undefined {
  return path
    .split(delimiter)
    .filter(Boolean)
    .map((directory) => join(directory, name))
    .find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
