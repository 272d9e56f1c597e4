import type { Config } from '../config/config.ts'
import { flags } from './arguments.ts'

export interface KubeProxyOptions {
  readonly config: Config
  readonly kubeconfig: string
  readonly mode: 'nftables' | 'iptables'
  /** The limits of /proc/sys/net/netfilter can be written (not so in containers and network namespaces). */
  readonly canSetConntrack: boolean
  /** CAP_SYS_RESOURCE: lower OOM scores than one's own can be given. */
  readonly canLowerOomScore: boolean
}

export const kubeProxyHealthPort = 10256
const kubeProxyMetricsPort = 10249

/** 0 leaves a limit as the kernel has it; kube-proxy ends when it cannot write one (conntrack/sysctls.go). */
const conntrackAsItIs = {
  'conntrack-max-per-core': 0,
  'conntrack-min': 0,
  'conntrack-tcp-timeout-established': '0s',
  'conntrack-tcp-timeout-close-wait': '0s',
} as const

/**
 * The flags of kube-proxy (cmd/kube-proxy/app/options.go). Flags and no file: with --config it passes
 * over all other flags, and so over what a user passes through.
 */
export function kubeProxyArguments(options: KubeProxyOptions): string[] {
  const { config, kubeconfig, mode, canSetConntrack, canLowerOomScore } = options
  return flags(
    {
      'cluster-cidr': config.clusterCidr,
      ...(canSetConntrack ? {} : conntrackAsItIs),
      'healthz-bind-address': `127.0.0.1:${kubeProxyHealthPort}`,
      'hostname-override': config.nodeName,
      kubeconfig,
      'metrics-bind-address': `127.0.0.1:${kubeProxyMetricsPort}`,
      'oom-score-adj': canLowerOomScore ? undefined : 0,
      'proxy-mode': mode,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeProxyArg,
  )
}
