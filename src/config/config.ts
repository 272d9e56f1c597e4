/** Parts of a cluster that `--disable` leaves out. */
export const disableable = ['coredns', 'kube-proxy'] as const
export type Disableable = (typeof disableable)[number]

/**
 * Everything that a user decides, checked and complete: `loadConfig` yields it frozen, and nothing
 * else builds one. A field is its flag's name in camel case.
 */
export interface Config {
  /** 'ha' is reserved for clusters of several servers, and refused until they exist. */
  readonly serverMode: 'single' | 'ha'
  /** Absolute. */
  readonly dataDir: string
  readonly nodeName: string
  readonly nodeIp: string
  /** key=value */
  readonly nodeLabel: readonly string[]
  /** key=value:Effect or key:Effect */
  readonly nodeTaint: readonly string[]
  /** DNS names and addresses beside those the API server's certificate has anyway. */
  readonly tlsSan: readonly string[]
  readonly bindAddress: string
  readonly advertiseAddress: string
  readonly httpsListenPort: number
  readonly clusterCidr: string
  readonly serviceCidr: string
  readonly clusterDns: string
  readonly clusterDomain: string
  /** Absolute. */
  readonly kubeletRootDir: string
  /** Absolute; a second copy of the admin kubeconfig. */
  readonly writeKubeconfig?: string
  readonly disable: readonly Disableable[]
  readonly cgroupDriver: 'auto' | 'systemd' | 'cgroupfs'
  readonly kubeProxyMode: 'auto' | 'nftables' | 'iptables'
  /** Off, pods keep the /etc/hosts of their images (patches/README.md). */
  readonly kubeletMountHostsFile: boolean
  readonly snapshotter: 'overlayfs' | 'native'
  /** flag=value without leading dashes, as are the four below; these win over the daemon's own flags. */
  readonly kubeApiserverArg: readonly string[]
  readonly kubeControllerManagerArg: readonly string[]
  readonly kubeSchedulerArg: readonly string[]
  readonly kubeletArg: readonly string[]
  readonly kubeProxyArg: readonly string[]
  /** Times as in crontab(5), or 'none'. */
  readonly snapshotScheduleCron: string
  /** How many snapshots of the schedule are kept. */
  readonly snapshotRetention: number
  /** Absolute. */
  readonly snapshotDir: string
  /** Absolute; what is in it seals the snapshots. */
  readonly snapshotSecretFile?: string
  /** klog's verbosity, 0 to 10. */
  readonly v: number
  readonly logFormat: 'auto' | 'json' | 'text'
  /** The daemon's own stop ends the pods too. */
  readonly stopPods: boolean
}
