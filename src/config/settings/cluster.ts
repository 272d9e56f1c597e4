import { joiners, servers } from '../roles.ts'
import { address, choice, domain, ofEachFamily, range } from '../table/kinds.ts'
import { Refused, type ValueKind } from '../table/option.ts'
import type { Rows } from './rows.ts'

const group = 'Cluster'

export interface ClusterSettings {
  /** One range, or one of each family with a comma between them; the first family is that of all that has but one address. */
  readonly clusterCidr: string
  /** Of the same families. */
  readonly serviceCidr: string
  /** Of the first family. */
  readonly clusterDns: string
  readonly clusterDomain: string
  /** How pods of different nodes reach each other. */
  readonly networkBackend: NetworkBackend
}

export const networkBackends = ['vxlan', 'host-gw', 'none'] as const
export type NetworkBackend = (typeof networkBackends)[number]

const anyBackend = choice(...networkBackends)
const backend: ValueKind<NetworkBackend> = {
  ...anyBackend,
  parse: (text) =>
    text === 'wireguard'
      ? new Refused(
          'WireGuard is not among them, since nobody has run it; take vxlan, and a VPN between the machines where others could listen',
        )
      : anyBackend.parse(text),
}

export const clusterSettings: Rows<ClusterSettings> = {
  'cluster-cidr': {
    group,
    description: 'The addresses of pods; with a range of each family, every pod has one of each.',
    // Nodes get a /24 or a /64 each; kube-controller-manager's allocator holds 2^16 of the latter.
    kind: ofEachFamily(range({ 4: { from: 8, to: 24 }, 6: { from: 48, to: 64 } })),
    default: '10.244.0.0/16',
    roles: servers,
    learntBy: joiners,
    factOf: 'cluster',
  },
  'service-cidr': {
    group,
    description: 'The addresses of services, of the same families as those of pods.',
    // The tenth address has to be in it; kube-apiserver takes no wider IPv6 range.
    kind: ofEachFamily(range({ 4: { from: 8, to: 28 }, 6: { from: 64, to: 124 } })),
    default: '10.96.0.0/12',
    roles: servers,
    learntBy: joiners,
    factOf: 'cluster',
  },
  'cluster-dns': {
    group,
    description: 'The address of the DNS service.',
    kind: address,
    defaultText: 'the tenth address of (the first) service-cidr',
    roles: servers,
    learntBy: joiners,
    factOf: 'cluster',
  },
  'cluster-domain': {
    group,
    description: 'The DNS domain of the cluster.',
    kind: domain,
    default: 'cluster.local',
    roles: servers,
    learntBy: joiners,
    factOf: 'cluster',
  },
  'network-backend': {
    group,
    description:
      'How pods of different nodes reach each other: by vxlan, by routes alone (host-gw, where all nodes are on one network), or as others see to.',
    kind: backend,
    default: 'vxlan',
    roles: servers,
    // By the task that keeps the network, again and again (cluster/tasks/network.ts).
    learntBy: joiners,
    change:
      'All servers of a cluster have the same. Every node follows within a minute; until all have, pods of some reach no others.',
  },
}
