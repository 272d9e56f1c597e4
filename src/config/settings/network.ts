import { clusterNodes } from '../roles.ts'
import { choice } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Network'

export interface NetworkSettings {
  readonly kubeProxyMode: 'auto' | 'nftables' | 'iptables'
}

export const networkSettings: Rows<NetworkSettings> = {
  'kube-proxy-mode': {
    group,
    description: 'What kube-proxy programs; auto takes nftables where the kernel has it.',
    kind: choice('auto', 'nftables', 'iptables'),
    default: 'auto',
    roles: clusterNodes,
  },
}
