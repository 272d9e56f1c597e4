import { familyOf, ofFamilies } from '../../base/address.ts'

interface CniOptions {
  /** The addresses of this node's pods, of each family: `nodePodCidr` of the cluster's. */
  readonly podCidr: string
  /** What kube-proxy's rules are made of, so that one tool shows them all. */
  readonly backend: 'nftables' | 'iptables'
  /** host-local keeps one file here for each address in use; emptied by a reboot's cleaning. */
  readonly ipamDir: string
  /** Of the pods' interfaces (overlay.ts); undefined: the kernel's default. */
  readonly mtu: number | undefined
}

export const bridgeName = 'cni0'
/** Names the network in host-local's and libcni's records too. */
export const networkName = 'k8s'
/** Below cniConfDir; first in the order of names, as only one configuration is read. */
export const cniConfigName = '10-k8s.conflist'

/** The defaults of kube-controller-manager's --node-cidr-mask-size-ipv4 and -ipv6. */
const nodePrefixes = { 4: 24, 6: 64 } as const

/** What kube-controller-manager's --node-cidr-mask-size must be for a range; a small cluster range is one node's. */
export function nodeCidrMaskSize(cidr: string): number {
  return Math.max(splitCidr(cidr).prefix, nodePrefixes[familyOf(cidr)])
}

/**
 * The range of the cluster's first node, of each family: the first of its size, as kube-controller-manager's allocator
 * gives it (pkg/controller/nodeipam/ipam/cidrset starts at 0). Rendering it needs no Node object to be
 * there, so pods start as soon as the kubelet does.
 */
export function nodePodCidr(clusterCidr: string): string {
  return ofFamilies(clusterCidr)
    .map((cidr) => `${splitCidr(cidr).address}/${nodeCidrMaskSize(cidr)}`)
    .join(',')
}

const anywhere = { 4: '0.0.0.0/0', 6: '::/0' } as const

/** The bridge for the pods' own interface, and hostPort. Masquerading needs no pods: the daemon sees to it (node/firewall). */
export function renderCniConfig({ podCidr, backend, ipamDir, mtu }: CniOptions): string {
  const ranges = ofFamilies(podCidr)
  const config = {
    cniVersion: '1.0.0',
    name: networkName,
    plugins: [
      {
        type: 'bridge',
        bridge: bridgeName,
        isGateway: true,
        // The bridge of another range (the machine was renamed, or another cluster's snapshot restored) gets this one's.
        forceAddress: true,
        // A pod may reach itself through its own Service.
        hairpinMode: true,
        ...(mtu === undefined ? {} : { mtu }),
        ipam: {
          type: 'host-local',
          dataDir: ipamDir,
          ranges: ranges.map((subnet) => [{ subnet }]),
          routes: ranges.map((subnet) => ({ dst: anywhere[familyOf(subnet)] })),
        },
      },
      { type: 'portmap', backend, snat: true, capabilities: { portMappings: true } },
    ],
  }
  return `${JSON.stringify(config, undefined, 2)}\n`
}

/** Config has checked the range: its address is its first one. */
function splitCidr(cidr: string): { address: string; prefix: number } {
  const [address = '', prefix = ''] = cidr.split('/')
  return { address, prefix: Number(prefix) }
}
