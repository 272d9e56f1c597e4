import { clusterNodes } from '../roles.ts'
import { boolean, choice } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Network'

export interface NetworkSettings {
  readonly kubeProxyMode: 'auto' | 'nftables' | 'iptables'
  /** Of what this machine sends to the pods of others. */
  readonly vxlanChecksumOffload: boolean
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
}
