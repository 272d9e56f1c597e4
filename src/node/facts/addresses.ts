import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { formatAddress } from '../../base/address.ts'
import type { HostFiles } from './host-files.ts'

/** An address of an interface that is up. */
export interface InterfaceAddress {
  readonly interface: string
  readonly address: string
  /**
   * bridge: one that ties containers or virtual machines together (cni0, docker0, virbr0), and is nobody's way
   * out; tunnel: tun, tap, WireGuard and the like; passing: one of IPv6 that ends after a while (RFC 8981) or is not
   * settled; loopback: one that somebody has put on lo, as those do who announce it by BGP; plain: all others, a bridge
   * with a network card in it, too.
   */
  readonly kind: 'plain' | 'tunnel' | 'bridge' | 'passing' | 'loopback'
}

/** ARPHRD_ETHER and ARPHRD_INFINIBAND (if_arp.h): whatever has another type is a tunnel, or lo. */
const cardTypes = ['1', '32']
const tunnelDevices = ['vxlan', 'geneve', 'wireguard', 'gre', 'ipip', 'sit']
/** What leads out of the machine, seen from a bridge: cards have a device of their own. */
const trunkDevices = ['bond', 'vlan', 'wlan']

/** Without the loopback interface, in the kernel's order. `entries` are another machine's in tests. */
export function readInterfaceAddresses(
  files: HostFiles,
  entries: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): InterfaceAddress[] {
  const passing = readPassing(files)
  return Object.entries(entries).flatMap(([name, addresses = []]) => {
    const kind = kindOf(files, name)
    return addresses
      .filter(({ internal }) => !internal)
      .map(({ address }) => ({
        interface: name,
        address,
        kind: passing.has(address) && kind !== 'bridge' ? 'passing' : kind,
      }))
  })
}

/** IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED and IFA_F_TENTATIVE (if_addr.h). */
const passingFlags = 0x01 | 0x08 | 0x20 | 0x40

/** /proc/net/if_inet6: address, index, length of the prefix, scope and flags in hex, name. */
function readPassing(files: HostFiles): Set<string> {
  const rows = (files.read('/proc/net/if_inet6') ?? '').split('\n')
  return new Set(
    rows.flatMap((row) => {
      const [hex = '', , , , flags = ''] = row.trim().split(/\s+/)
      if ((Number.parseInt(flags, 16) & passingFlags) === 0 || hex.length !== 32) return []
      return [formatAddress({ family: 6, bits: BigInt(`0x${hex}`) })]
    }),
  )
}

function kindOf(files: HostFiles, name: string): InterfaceAddress['kind'] {
  const path = `/sys/class/net/${name}`
  // In some containers /sys shows another network namespace: nothing is known then.
  if (!files.exists(path)) return 'plain'
  if (files.exists(`${path}/bridge`)) {
    return files.list(`${path}/brif`).some((port) => leadsOut(files, port)) ? 'plain' : 'bridge'
  }
  const type = files.read(`${path}/type`)?.trim()
  const isTunnel =
    files.exists(`${path}/tun_flags`) ||
    tunnelDevices.includes(deviceType(files, name) ?? '') ||
    (type !== undefined && !cardTypes.includes(type))
  return isTunnel ? 'tunnel' : 'plain'
}

/** Whether the machine itself hears others there: no bridge of containers, no port of a bridge, and nothing that is unknown. */
export function isUplink(files: HostFiles, name: string): boolean {
  const path = `/sys/class/net/${name}`
  return (
    name !== 'lo' && files.exists(path) && !files.exists(`${path}/master`) && kindOf(files, name) !== 'bridge'
  )
}

function leadsOut(files: HostFiles, port: string): boolean {
  return files.exists(`/sys/class/net/${port}/device`) || trunkDevices.includes(deviceType(files, port) ?? '')
}

function deviceType(files: HostFiles, name: string): string | undefined {
  return /^DEVTYPE=(.*)$/m.exec(files.read(`/sys/class/net/${name}/uevent`) ?? '')?.[1]
}

/** What lo has beside its own. */
export function loopbackAddresses(interfaces = networkInterfaces()): string[] {
  return Object.values(interfaces)
    .flatMap((entries) => entries ?? [])
    .filter(({ internal, address }) => internal && !address.startsWith('127.') && address !== '::1')
    .map(({ address }) => address)
}
