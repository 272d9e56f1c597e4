import { roleOf, roles } from './roles.ts'
import type { ClusterSettings } from './settings/cluster.ts'
import type { ComponentsSettings } from './settings/components.ts'
import type { EtcdSettings } from './settings/etcd.ts'
import type { JoinSettings } from './settings/join.ts'
import type { KubeletAloneSettings } from './settings/kubelet.ts'
import type { LoggingSettings } from './settings/logging.ts'
import type { MetricsSettings } from './settings/metrics.ts'
import type { NetworkSettings } from './settings/network.ts'
import type { NodeSettings } from './settings/node.ts'
import type { RoleSettings } from './settings/role.ts'
import type { ServerSettings } from './settings/server.ts'
import type { SnapshotsSettings } from './settings/snapshots.ts'
import type { DatastoreAloneSettings, StorageSettings } from './settings/storage.ts'

/**
 * Everything that a user decides of a server, checked and complete: `loadConfig` yields it frozen, and
 * nothing else builds one. A field is its flag's name in camel case.
 */
export interface Config
  extends NodeConfig,
    RoleSettings,
    StorageSettings,
    EtcdSettings,
    ServerSettings,
    ComponentsSettings,
    SnapshotsSettings,
    Partial<JoinSettings> {
  readonly role: 'server'
}

/** What every machine with pods has, in a cluster or alone. */
export interface MachineConfig
  extends Pick<ClusterSettings, 'clusterCidr' | 'networkBackend'>,
    NodeSettings,
    NetworkSettings,
    LoggingSettings,
    MetricsSettings,
    Pick<ServerSettings, 'disable'>,
    Pick<StorageSettings, 'dataDir'>,
    Pick<ComponentsSettings, 'kubeletArg'> {}

/** What all nodes of a cluster have of it, whatever else they are. */
export interface NodeConfig
  extends MachineConfig,
    ClusterSettings,
    Pick<ComponentsSettings, 'kubeProxyArg'> {}

/** The same of an agent. What it has of its cluster is that cluster's, and the default until it has joined. */
export interface AgentConfig extends NodeConfig, JoinSettings {
  readonly role: 'agent'
}

/** The same of a kubelet alone; what others have of a cluster is fixed. */
export interface KubeletConfig
  extends MachineConfig,
    KubeletAloneSettings,
    Pick<ComponentsSettings, 'criDockerdArg'>,
    Pick<DatastoreAloneSettings, 'insecure'> {
  readonly role: 'kubelet'
}

/** What a kubelet alone has no say in. The network of its pods cni/10-bridge.conf has, too. */
export const aloneFixed = {
  clusterCidr: '10.244.0.0/16',
  networkBackend: 'none',
  kubeProxyMode: 'auto',
  vxlanChecksumOffload: false,
  disable: ['kube-proxy', 'network-policy'],
  nodeTaint: [],
} as const satisfies Partial<KubeletConfig>

/** The same of a datastore. */
export interface DatastoreConfig
  extends Pick<RoleSettings, 'role'>,
    StorageSettings,
    DatastoreAloneSettings,
    Omit<SnapshotsSettings, 'snapshotScheduleCron'>,
    LoggingSettings,
    MetricsSettings {
  readonly role: 'datastore'
}

export type AnyConfig = Config | AgentConfig | KubeletConfig | DatastoreConfig

/** Whether a kubelet and containerd are part of it. */
export function hasNode(config: AnyConfig): config is Extract<AnyConfig, NodeSettings> {
  return roles[roleOf(config)].hasNode
}
