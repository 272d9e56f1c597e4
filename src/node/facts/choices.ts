import type { MachineConfig } from '../../config/config.ts'
import type { HostFacts } from './host.ts'

/** What `auto` stands for on this machine. */
export interface NodeChoices {
  readonly cgroupDriver: 'systemd' | 'cgroupfs'
  readonly proxyMode: 'nftables' | 'iptables'
}

export function chooseForNode(
  config: Pick<MachineConfig, 'cgroupDriver' | 'kubeProxyMode'>,
  host: HostFacts,
): NodeChoices {
  return {
    cgroupDriver: config.cgroupDriver === 'auto' ? preferredCgroupDriver(host) : config.cgroupDriver,
    proxyMode: config.kubeProxyMode === 'auto' ? preferredProxyMode(host) : config.kubeProxyMode,
  }
}

/** On v2 systemd owns the tree, and two writers would undo each other's limits; on v1 each may have its own. */
function preferredCgroupDriver({ isSystemd, cgroups }: HostFacts): 'systemd' | 'cgroupfs' {
  return isSystemd && cgroups.version === 2 ? 'systemd' : 'cgroupfs'
}

/** nftables, unless something that it needs is known to be missing, or nothing is known and iptables is there. */
function preferredProxyMode(host: HostFacts): 'nftables' | 'iptables' {
  if (!canUseNftables(host)) return 'iptables'
  return host.kernel.nftables() === 'unknown' && host.command('iptables') !== undefined
    ? 'iptables'
    : 'nftables'
}

/** kube-proxy's own condition (pkg/proxy/nftables/supported.go). */
export const nftablesKernel = { major: 5, minor: 13 } as const

export function canUseNftables({ kernel, command }: HostFacts): boolean {
  const { major, minor } = nftablesKernel
  return kernel.isAtLeast(major, minor) && kernel.nftables() !== 'absent' && command('nft') !== undefined
}
