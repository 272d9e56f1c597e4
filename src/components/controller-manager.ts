import type { Config } from '../config/config.ts'
import { nodeCidrMaskSize } from '../node/render/cni-config.ts'
import type { KeyPairFiles } from '../pki/authority.ts'
import type { PkiFiles } from '../pki/pki.ts'
import { flags } from './arguments.ts'

export interface ControllerManagerOptions {
  readonly config: Config
  readonly pki: PkiFiles
  readonly kubeconfig: string
}

export const controllerManagerPort = 10257

/**
 * The flags of kube-controller-manager (cmd/kube-controller-manager/app/options). Each controller has
 * a service account of its own; there is one process, so it elects no leader.
 */
export function controllerManagerArguments({ config, pki, kubeconfig }: ControllerManagerOptions): string[] {
  const signer = (authority: KeyPairFiles, name: string) => ({
    [`cluster-signing-${name}-cert-file`]: authority.certFile,
    [`cluster-signing-${name}-key-file`]: authority.keyFile,
  })
  return flags(
    {
      'allocate-node-cidrs': true,
      'authentication-kubeconfig': kubeconfig,
      'authorization-kubeconfig': kubeconfig,
      'bind-address': '127.0.0.1',
      'cluster-cidr': config.clusterCidr,
      ...signer(pki.authorities.client, 'kube-apiserver-client'),
      ...signer(pki.authorities.client, 'kubelet-client'),
      ...signer(pki.authorities.server, 'kubelet-serving'),
      ...signer(pki.authorities.server, 'legacy-unknown'),
      kubeconfig,
      'leader-elect': false,
      'node-cidr-mask-size': nodeCidrMaskSize(config.clusterCidr),
      profiling: false,
      'root-ca-file': pki.authorities.server.certFile,
      'secure-port': controllerManagerPort,
      'service-account-private-key-file': pki.serviceAccountKeyFile,
      'service-cluster-ip-range': config.serviceCidr,
      'tls-cert-file': pki.leaves['controller-manager'].certFile,
      'tls-private-key-file': pki.leaves['controller-manager'].keyFile,
      'use-service-account-credentials': true,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeControllerManagerArg,
  )
}
