import { clusterNodes, nodes } from '../roles.ts'
import { boolean, choice, directory } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Network'

export interface NetworkSettings {
  readonly kubeProxyMode: 'auto' | 'nftables' | 'iptables'
  /** Of what this machine sends to the pods of others. */
  readonly vxlanChecksumOffload: boolean
  /** Of a network that others bring; without it pods have the daemon's own. */
  readonly cniConfDir?: string
}

export const networkSettings: Rows<NetworkSettings> = {
  'kube-proxy-mode': {
    group,
    description: 'What kube-proxy programs; auto takes nftables where the kernel has it.',
    kind: choice('auto', 'nftables', 'iptables'),
    default: 'auto',
    roles: clusterNodes,
  },
  'vxlan-checksum-offload': {
    group,
    description:
      'Leave checksums of what goes to pods of other nodes to the network card: up to three times the throughput, and no traffic but pings where the card, or a kernel before 5.7, gets them wrong.',
    kind: boolean,
    default: false,
    roles: clusterNodes,
  },
  'cni-conf-dir': {
    group,
    description:
      'Where a network of others (Cilium, Calico, flannel) puts its CNI configuration, as /etc/cni/net.d: pods have that network then, and none of the own. Its plugins are found in /opt/cni/bin.',
    kind: directory,
    defaultText: 'none: pods have the own network',
    roles: nodes,
    change:
      'What the kernel has of the former network (cni0, masquerading, hostPorts) goes with the next boot; pods that run keep it until they are made anew.',
  },
}
