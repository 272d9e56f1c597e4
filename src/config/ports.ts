import { clusterNodes, nodes, type RoleName, servers } from './roles.ts'

interface Port {
  readonly number: number
  /** Who listens there, as in "the kubelet has that port". */
  readonly holder: string
  readonly roles: readonly RoleName[]
  /** Taken only where a server has a member of etcd. */
  readonly ofMember?: boolean
}

/** Ports that no setting chooses, in their order. Those of settings are their defaults (https-listen-port, listen-address). */
export const ports = {
  etcd: { number: 2379, holder: 'etcd', roles: ['ha'], ofMember: true },
  etcdPeers: { number: 2380, holder: "etcd's peers", roles: ['ha'], ofMember: true },
  etcdMetrics: { number: 2381, holder: "etcd's metrics", roles: ['ha'], ofMember: true },
  apiBalancer: { number: 6444, holder: 'the way to the API servers', roles: ['agent'] },
  kubeletHealth: { number: 10248, holder: "the kubelet's health", roles: nodes },
  kubeProxyMetrics: { number: 10249, holder: "kube-proxy's metrics", roles: clusterNodes },
  kubelet: { number: 10250, holder: 'the kubelet', roles: nodes },
  kubeProxyHealth: { number: 10256, holder: "kube-proxy's health", roles: clusterNodes },
  controllerManager: { number: 10257, holder: 'kube-controller-manager', roles: servers },
  scheduler: { number: 10259, holder: 'kube-scheduler', roles: servers },
} as const satisfies Readonly<Record<string, Port>>

/** At which a server's own member of etcd is spoken to. */
export const etcdClientUrl = `https://127.0.0.1:${ports.etcd.number}`

/** At which a machine asks its own kubelet, which listens on this address. */
export function kubeletUrl(bindAddress: string): string {
  const address = { '0.0.0.0': '127.0.0.1', '::': '::1' }[bindAddress] ?? bindAddress
  return `https://${address.includes(':') ? `[${address}]` : address}:${ports.kubelet.number}`
}

/** What a machine of that role listens on. */
export function portsOfRole(
  role: RoleName,
  { clusterInit = false }: { clusterInit?: boolean | undefined } = {},
): Port[] {
  const ofRole = Object.values<Port>(ports).filter(({ roles }) => roles.includes(role))
  return ofRole.filter(({ ofMember = false }) => clusterInit || !ofMember)
}

/** Those of UDP, on which the kernel listens. */
export const datagramPorts = {
  // flannel's, so that firewalls that let it through let this through.
  vxlan: { number: 8472, holder: 'vxlan', roles: clusterNodes },
} as const satisfies Readonly<Record<string, Port>>
