import { networkInterfaces } from 'node:os'
import type { NetworkBackend } from '../../config/settings/cluster.ts'
import type { HostFiles } from '../facts/host-files.ts'

/** The device of vxlan; whatever is on it is ours. components/cni/network.go has the rest of it. */
export const overlayDevice = 'k8s-vxlan'

/** What vxlan puts around a packet: its own header, UDP, IP and Ethernet. */
const overheadBytes = { 4: 50, 6: 70 } as const

/**
 * What fits into one packet of a pod, from the first node on: pods need not be made anew when a second one comes. undefined:
 * the kernel's default.
 */
export function podMtu(uplinkMtu: number | undefined, given: { backend: NetworkBackend; nodeIp: string }) {
  if (given.backend !== 'vxlan') return uplinkMtu
  return (uplinkMtu ?? 1500) - overheadBytes[given.nodeIp.includes(':') ? 6 : 4]
}

/** Of the interface that has the Node's address; undefined where none has, or /sys shows those of another machine. */
export function uplinkMtu(
  files: HostFiles,
  nodeIp: string,
  interfaces = networkInterfaces(),
): number | undefined {
  const found = Object.entries(interfaces).find(([, entries = []]) =>
    entries.some(({ address, internal }) => address === nodeIp && !internal),
  )
  const mtu = Number(found && files.read(`/sys/class/net/${found[0]}/mtu`))
  return mtu > 0 ? mtu : undefined
}
