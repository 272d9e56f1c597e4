import { everyRole, type RoleName } from '../roles.ts'
import {
  boolean,
  clientUrl,
  directory,
  duration,
  file,
  integer,
  type ListenAddress,
  listenAddress,
} from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Storage'
const datastoreAlone = ['datastore'] as const satisfies readonly RoleName[]

export interface StorageSettings {
  /** Absolute. */
  readonly dataDir: string
  /** 0 for none. */
  readonly quotaBackendBytes: number
}

/** What a datastore that serves others than the daemon around it is told. */
export interface DatastoreAloneSettings {
  readonly listenAddress: ListenAddress
  /** Absolute, as are the two below. */
  readonly certFile?: string
  readonly keyFile?: string
  readonly trustedCaFile?: string
  readonly clientCertAuth: boolean
  readonly insecure: boolean
  /** Empty: they are chosen. */
  readonly advertiseClientUrls: readonly string[]
  /** In milliseconds. */
  readonly progressNotifyInterval: number
  readonly maxRequestBytes: number
  readonly maxTxnOps: number
  /** In milliseconds; 0 leaves it to clients. */
  readonly autoCompactionRetention: number
}

export const storageSettings: Rows<StorageSettings & DatastoreAloneSettings> = {
  'data-dir': {
    group,
    description: 'Where everything is kept that has to outlive a restart.',
    kind: directory,
    default: '/var/lib/k8s',
    roles: everyRole,
    change: 'Another directory is another cluster, or another datastore; what is in the former one stays.',
  },
  'listen-address': {
    group,
    description: 'Where clients of the datastore connect. A Unix socket is for its owner alone.',
    kind: listenAddress,
    default: { host: '127.0.0.1', port: 2379 },
    defaultText: '127.0.0.1:2379',
    roles: datastoreAlone,
  },
  'cert-file': {
    group,
    description:
      'The certificate of the datastore, in PEM. Files that change are taken up by the next connection.',
    kind: file,
    defaultText: 'none',
    roles: datastoreAlone,
  },
  'key-file': {
    group,
    description: 'The key of that certificate.',
    kind: file,
    defaultText: 'none',
    roles: datastoreAlone,
  },
  'trusted-ca-file': {
    group,
    description: 'Clients must show a certificate of one of these authorities.',
    kind: file,
    defaultText: 'none',
    roles: datastoreAlone,
  },
  'client-cert-auth': {
    group,
    description:
      "As etcd's: trusted-ca-file has to be there. Clients are asked for certificates whenever it is.",
    kind: boolean,
    default: false,
    roles: datastoreAlone,
  },
  insecure: {
    group,
    description:
      'Serve whoever can reach it, also off loopback: without it, an address of the machine needs client certificates.',
    kind: boolean,
    default: false,
    roles: ['kubelet', ...datastoreAlone],
  },
  'advertise-client-urls': {
    group,
    description: 'Where clients are told to go (the member list).',
    kind: clientUrl,
    separator: 'comma',
    default: [],
    defaultText:
      'the address that it listens on; for every address, those of the machine, and with TLS those that the certificate has',
    roles: datastoreAlone,
  },
  'progress-notify-interval': {
    group,
    description: 'How often watchers that ask for it are told that nothing has happened.',
    kind: duration,
    default: 600_000,
    defaultText: '10m',
    roles: datastoreAlone,
  },
  'quota-backend-bytes': {
    group,
    description: 'The size of the database from which on writes are refused; 0 for none.',
    kind: integer({ from: 0, to: 9_999_999_999 }),
    default: 8 * 1024 ** 3,
    roles: ['single', 'ha', ...datastoreAlone],
  },
  'max-request-bytes': {
    group,
    description: 'The largest request that is taken.',
    kind: integer({ from: 1024, to: 128 * 1024 ** 2 }),
    default: 1.5 * 1024 ** 2,
    roles: datastoreAlone,
  },
  'max-txn-ops': {
    group,
    description: 'The most operations in one transaction.',
    kind: integer({ from: 1, to: 100_000 }),
    default: 128,
    roles: datastoreAlone,
  },
  'auto-compaction-retention': {
    group,
    description: 'History that is older is removed where no client asks for it; 0s leaves it to clients.',
    kind: duration,
    default: 600_000,
    defaultText: '10m',
    roles: datastoreAlone,
  },
}
