import type { RoleName } from '../roles.ts'
import { clientUrl, file, keyPrefix } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'etcd'
const severalServers = ['ha'] as const satisfies readonly RoleName[]

/** An etcd that others run, which several servers share; one server alone has none of it. */
export interface EtcdSettings {
  readonly etcdEndpoints?: readonly string[]
  readonly etcdPrefix?: string
  /** Absolute, as are the two below. */
  readonly etcdCaFile?: string
  readonly etcdCertFile?: string
  readonly etcdKeyFile?: string
}

export const etcdSettings: Rows<EtcdSettings> = {
  'etcd-endpoints': {
    group,
    description: 'The members of the etcd that holds the cluster.',
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
}
