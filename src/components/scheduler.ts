import { criticalOomScore } from '../base/oom-score.ts'
import { ports } from '../config/ports.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import { flags, leaderElection } from './arguments.ts'
import type { ComponentContext } from './component.ts'
import { probeWithAuthority } from './probe.ts'
import { apiClient, type ProcessRecipe } from './process-component.ts'

const port = ports.scheduler.number

export function scheduler(context: ComponentContext): ProcessRecipe {
  const { pki } = context
  return {
    ...apiClient(context),
    name: 'kube-scheduler',
    args: () => schedulerArguments(context),
    oomScore: criticalOomScore,
    ports: [port],
    probe: (signal) => probeWithAuthority({ pki, url: `https://127.0.0.1:${port}/readyz`, signal }),
  }
}

type SchedulerOptions = Pick<ComponentContext, 'config' | 'paths' | 'pki'>

/** The flags of kube-scheduler (cmd/kube-scheduler/app/options). */
function schedulerArguments({ config, paths, pki }: SchedulerOptions): string[] {
  const kubeconfig = kubeconfigPath(paths.kubeconfigDir, 'kube-scheduler')
  return flags(
    {
      'authentication-kubeconfig': kubeconfig,
      'authorization-kubeconfig': kubeconfig,
      'bind-address': '127.0.0.1',
      kubeconfig,
      ...leaderElection(config),
      profiling: false,
      'secure-port': port,
      'tls-cert-file': pki.leaves.scheduler.certFile,
      'tls-private-key-file': pki.leaves.scheduler.keyFile,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeSchedulerArg,
  )
}
