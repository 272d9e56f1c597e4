import { ports } from '../config/ports.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import { flags } from './arguments.ts'
import type { NodeContext } from './component.ts'
import { probeHttp } from './probe.ts'
import { apiClient, type ProcessRecipe } from './process-component.ts'

const healthPort = ports.kubeProxyHealth.number
const metricsPort = ports.kubeProxyMetrics.number

export function kubeProxy(context: NodeContext): ProcessRecipe | undefined {
  const { config } = context
  if (config.disable.includes('kube-proxy')) return undefined
  return {
    ...apiClient(context),
    name: 'kube-proxy',
    // It looks its Node up, and would wait for it in steps of its own.
    needs: ['api', 'node'],
    args: () => kubeProxyArguments(context),
    ports: [healthPort],
    // /healthz asks for more: that no Node is about to go.
    alive: (signal) => probe('livez', signal),
    probe: (signal) => probe('healthz', signal),
  }
}

async function probe(path: 'livez' | 'healthz', signal: AbortSignal): Promise<void> {
  await probeHttp({ url: `http://127.0.0.1:${healthPort}/${path}`, signal })
}

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
export function kubeProxyArguments(
  context: Pick<NodeContext, 'config' | 'paths' | 'choices'> & {
    readonly host: Pick<NodeContext['host'], 'canSetConntrack' | 'capabilities'>
  },
): string[] {
  const { config, paths, host, choices } = context
  return flags(
    {
      'cluster-cidr': config.clusterCidr,
      ...(host.canSetConntrack ? {} : conntrackAsItIs),
      'healthz-bind-address': `127.0.0.1:${healthPort}`,
      'hostname-override': config.nodeName,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kube-proxy'),
      'metrics-bind-address': `127.0.0.1:${metricsPort}`,
      'oom-score-adj': host.capabilities.sysResource ? undefined : 0,
      'proxy-mode': choices.proxyMode,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeProxyArg,
  )
}
