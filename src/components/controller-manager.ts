import { familyOf, ofFamilies } from '../base/address.ts'
import { criticalOomScore } from '../base/oom-score.ts'
import { nodeCidrMaskSize } from '../node/render/cni-config.ts'
import type { KeyPairFiles } from '../pki/authority.ts'
import { ports } from '../config/ports.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import { flags, leaderElection } from './arguments.ts'
import type { ComponentContext } from './component.ts'
import { probeWithAuthority } from './probe.ts'
import { apiClient, type ProcessRecipe } from './process-component.ts'

const port = ports.controllerManager.number

export function controllerManager(context: ComponentContext): ProcessRecipe {
  const { pki } = context
  return {
    ...apiClient(context),
    name: 'kube-controller-manager',
    args: () => controllerManagerArguments(context),
    oomScore: criticalOomScore,
    ports: [port],
    probe: (signal) => probeWithAuthority({ pki, url: `https://127.0.0.1:${port}/healthz`, signal }),
  }
}

/** With ranges of both families it takes a flag for each, and no other (controllers/core.go: setNodeCIDRMaskSizes). */
function nodeCidrMaskSizes(clusterCidr: string): Record<string, number> {
  const cidrs = ofFamilies(clusterCidr)
  if (cidrs.length === 1) return { 'node-cidr-mask-size': nodeCidrMaskSize(clusterCidr) }
  return Object.fromEntries(
    cidrs.map((cidr) => [`node-cidr-mask-size-ipv${familyOf(cidr)}`, nodeCidrMaskSize(cidr)]),
  )
}

type ControllerManagerOptions = Pick<ComponentContext, 'config' | 'paths' | 'pki' | 'payload'>

/**
 * One that ends gives its Lease back once its controllers have ended, as kube-scheduler does; otherwise the next one waits for half a
 * minute. Upstream has it since 1.36, not as the default yet (KEP-5366). The limit is less than the one of its stop.
 */
function leaseGivenBack({ config, payload }: ControllerManagerOptions): Record<string, string> {
  const minor = Number(/^v1\.(\d+)\./.exec(payload.version.gitVersion)?.[1])
  if (config.serverMode === 'single' || !(minor >= 36)) return {}
  return {
    'controller-shutdown-timeout': '6s',
    'feature-gates': 'ControllerManagerReleaseLeaderElectionLockOnExit=true',
  }
}

/**
 * The flags of kube-controller-manager (cmd/kube-controller-manager/app/options). Each controller has
 * a service account of its own. Of the signers, those of clients and those of servers have an authority each, and the
 * signer kubernetes.io/legacy-unknown, which would give a certificate any usage, has none.
 */
export function controllerManagerArguments(options: ControllerManagerOptions): string[] {
  const { config, paths, pki } = options
  const kubeconfig = kubeconfigPath(paths.kubeconfigDir, 'kube-controller-manager')
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
      // Signs cluster-info with join tokens, and removes those that have expired.
      controllers: '*,bootstrap-signer-controller,token-cleaner-controller',
      kubeconfig,
      ...leaderElection(config),
      ...leaseGivenBack(options),
      ...nodeCidrMaskSizes(config.clusterCidr),
      profiling: false,
      'root-ca-file': pki.authorities.server.certFile,
      'secure-port': port,
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
