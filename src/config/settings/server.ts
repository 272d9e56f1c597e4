import { clusterNodes, servers } from '../roles.ts'
import { address, choice, directory, dnsNameOrAddress, file, integer, nodeAddress } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Server'

/** Parts of a cluster that `--disable` leaves out. */
export const disableable = [
  'coredns',
  'kube-proxy',
  'network-policy',
  'servicelb',
  'metrics-server',
  'local-storage',
] as const
type Disableable = (typeof disableable)[number]
/** Those that each node has by itself; all others are a part of the servers. */
export const disableableOnAgents: readonly Disableable[] = ['kube-proxy', 'network-policy']

export interface ServerSettings {
  readonly bindAddress: string
  readonly httpsListenPort: number
  /** Undefined: the Node's. */
  readonly advertiseAddress?: string
  /** DNS names and addresses beside those the API server's certificate has anyway. */
  readonly tlsSan: readonly string[]
  /** Absolute; the admin's access is merged into what is there. */
  readonly writeKubeconfig?: string
  readonly disable: readonly Disableable[]
  /** Absolute: of volumes, on every node. */
  readonly localStoragePath: string
}

export const serverSettings: Rows<ServerSettings> = {
  'bind-address': {
    group,
    description: 'The address on which the API server listens.',
    kind: address,
    defaultText: '0.0.0.0, or :: with an IPv6 service-cidr',
    roles: servers,
  },
  'https-listen-port': {
    group,
    description: 'The port on which the API server listens.',
    kind: integer({ from: 1, to: 65_535 }),
    default: 6443,
    roles: servers,
  },
  'advertise-address': {
    group,
    description: 'The address at which pods and other nodes reach the API server.',
    kind: nodeAddress,
    defaultText: 'the value of node-ip',
    roles: servers,
  },
  'tls-san': {
    group,
    description: "A further name or address in the API server's certificate.",
    kind: dnsNameOrAddress,
    separator: 'comma',
    default: [],
    roles: servers,
  },
  'write-kubeconfig': {
    group,
    description:
      "A kubeconfig that gets the admin's access, beside whatever else is in it; a new one is for its owner alone.",
    kind: file,
    defaultText: 'none',
    roles: servers,
  },
  disable: {
    group,
    description: 'A part of the cluster to leave out.',
    kind: choice(...disableable),
    separator: 'comma',
    default: [],
    roles: clusterNodes,
  },
  'local-storage-path': {
    group,
    description:
      'The directory on each node in which volumes of the StorageClass local-path are made; the same on each server.',
    kind: directory,
    defaultText: 'storage in the data directory',
    roles: servers,
    change: 'Volumes that are there stay where they are.',
  },
}
