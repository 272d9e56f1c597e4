import { renderYaml } from './yaml.ts'

export interface KubeProxyOptions {
  readonly kubeconfig: string
  readonly nodeName: string
  readonly mode: 'nftables' | 'iptables'
  readonly clusterCidr: string
  /** The limits of /proc/sys/net/netfilter can be written (not so in containers and network namespaces). */
  readonly canSetConntrack: boolean
  /** CAP_SYS_RESOURCE: lower OOM scores than one's own can be given. */
  readonly canLowerOomScore: boolean
}

/** 0 leaves a limit as the kernel has it; kube-proxy ends when it cannot write one (conntrack/sysctls.go). */
const conntrackAsItIs = {
  maxPerCore: 0,
  min: 0,
  tcpEstablishedTimeout: '0s',
  tcpCloseWaitTimeout: '0s',
} as const

/** KubeProxyConfiguration v1alpha1. What is not named has upstream's default. */
export function renderKubeProxyConfig(options: KubeProxyOptions): string {
  return renderYaml({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    clientConnection: { kubeconfig: options.kubeconfig },
    hostnameOverride: options.nodeName,
    mode: options.mode,
    clusterCIDR: options.clusterCidr,
    healthzBindAddress: '127.0.0.1:10256',
    metricsBindAddress: '127.0.0.1:10249',
    conntrack: options.canSetConntrack ? undefined : conntrackAsItIs,
    oomScoreAdj: options.canLowerOomScore ? undefined : 0,
  })
}
