import type { Config } from '../config/config.ts'
import type { PkiFiles } from '../pki/pki.ts'
import { flags } from './arguments.ts'

export interface SchedulerOptions {
  readonly config: Config
  readonly pki: PkiFiles
  readonly kubeconfig: string
}

export const schedulerPort = 10259

/** The flags of kube-scheduler (cmd/kube-scheduler/app/options). */
export function schedulerArguments({ config, pki, kubeconfig }: SchedulerOptions): string[] {
  return flags(
    {
      'authentication-kubeconfig': kubeconfig,
      'authorization-kubeconfig': kubeconfig,
      'bind-address': '127.0.0.1',
      kubeconfig,
      'leader-elect': false,
      profiling: false,
      'secure-port': schedulerPort,
      'tls-cert-file': pki.leaves.scheduler.certFile,
      'tls-private-key-file': pki.leaves.scheduler.keyFile,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeSchedulerArg,
  )
}
