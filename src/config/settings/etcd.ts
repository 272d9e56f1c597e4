import type { RoleName } from '../roles.ts'
import { boolean, clientUrl, duration, file, keyPrefix } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'etcd'
const severalServers = ['ha'] as const satisfies readonly RoleName[]

/** The etcd that several servers share: their own, or one that others run; one server alone has none of it. */
export interface EtcdSettings {
  /** Each server has a member of it. */
  readonly clusterInit?: boolean
  /** Of one that others run, as are the three files. */
  readonly etcdEndpoints?: readonly string[]
  readonly etcdPrefix?: string
  /** Absolute, as are the two below. */
  readonly etcdCaFile?: string
  readonly etcdCertFile?: string
  readonly etcdKeyFile?: string
  /** Of members of servers, in milliseconds, as is the one below. */
  readonly etcdHeartbeatInterval?: number
  readonly etcdElectionTimeout?: number
}

export const etcdSettings: Rows<EtcdSettings> = {
  'cluster-init': {
    group,
    description:
      'Create a cluster whose servers keep it in an etcd of their own: this server is its first member.',
    kind: boolean,
    default: false,
    roles: severalServers,
    factOf: 'cluster',
  },
  'etcd-endpoints': {
    group,
    description: 'The members of the etcd that holds the cluster, where others run it.',
    kind: clientUrl,
    separator: 'comma',
    default: ['http://127.0.0.1:2379'],
    defaultText: 'http://127.0.0.1:2379',
    roles: severalServers,
  },
  'etcd-prefix': {
    group,
    description:
      "What the keys of the cluster's objects begin with: clusters that share an etcd differ in it.",
    kind: keyPrefix,
    default: '/registry',
    roles: severalServers,
    factOf: 'cluster',
  },
  'etcd-ca-file': {
    group,
    description:
      'The authorities of the certificates of etcd, in PEM. Files that change are taken up by the next connection.',
    kind: file,
    defaultText: "the system's",
    roles: severalServers,
  },
  'etcd-cert-file': {
    group,
    description: 'The certificate that is shown to etcd.',
    kind: file,
    defaultText: 'none',
    roles: severalServers,
  },
  'etcd-key-file': {
    group,
    description: 'The key of that certificate.',
    kind: file,
    defaultText: 'none',
    roles: severalServers,
  },
  'etcd-heartbeat-interval': {
    group,
    description:
      'How often the leader of the members that servers bring tells the others that it is there; the same on each.',
    kind: duration,
    default: 100,
    defaultText: '100ms',
    roles: severalServers,
  },
  'etcd-election-timeout': {
    group,
    description:
      'After how long without that they choose another, which slow disks and networks may need more of; the same on each.',
    kind: duration,
    default: 1_000,
    defaultText: '1s',
    roles: severalServers,
  },
}
