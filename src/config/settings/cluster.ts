import { address, domain, range } from '../table/kinds.ts'
import { Refused, type ValueKind } from '../table/option.ts'
import type { Rows } from './rows.ts'

const group = 'Cluster'

/** One server until several can share a datastore. */
const serverMode: ValueKind<'single' | 'ha'> = {
  placeholder: 'MODE',
  allowed: 'single',
  choices: ['single'],
  parse(text) {
    if (text === 'single') return text
    return text === 'ha'
      ? new Refused('clusters of several servers are not there yet; allowed is single')
      : new Refused()
  },
}

export interface ClusterSettings {
  /** 'ha' is reserved for clusters of several servers, and refused until they exist. */
  readonly serverMode: 'single' | 'ha'
  readonly clusterCidr: string
  readonly serviceCidr: string
  readonly clusterDns: string
  readonly clusterDomain: string
}

export const clusterSettings: Rows<ClusterSettings> = {
  'server-mode': {
    group,
    description: 'How many servers share the cluster.',
    kind: serverMode,
    default: 'single',
  },
  'cluster-cidr': {
    group,
    description: 'The addresses of pods.',
    // Nodes get a /24 or a /64 each; kube-controller-manager's allocator holds 2^16 of the latter.
    kind: range({ 4: { from: 8, to: 24 }, 6: { from: 48, to: 64 } }),
    default: '10.244.0.0/16',
  },
  'service-cidr': {
    group,
    description: 'The addresses of services.',
    // The tenth address has to be in it; kube-apiserver takes no wider IPv6 range.
    kind: range({ 4: { from: 8, to: 28 }, 6: { from: 64, to: 124 } }),
    default: '10.96.0.0/12',
  },
  'cluster-dns': {
    group,
    description: 'The address of the DNS service.',
    kind: address,
    defaultText: 'the tenth address of service-cidr',
  },
  'cluster-domain': {
    group,
    description: 'The DNS domain of the cluster.',
    kind: domain,
    default: 'cluster.local',
  },
}
