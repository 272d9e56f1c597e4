import { join } from 'node:path'
import { renderYaml } from '../../base/yaml.ts'
import { ports } from '../../config/ports.ts'

export interface KubeletOptions {
  readonly cgroupVersion: 1 | 2
  readonly cgroupDriver: 'systemd' | 'cgroupfs'
  /** CAP_SYS_RESOURCE: lower OOM scores than one's own can be given. */
  readonly canLowerOomScore: boolean
  /** In a user namespace the kubelet must do without some of the kernel's settings. */
  readonly userNamespace: boolean
  readonly proxyMode: 'nftables' | 'iptables'
  /** Of containerd, without unix://. */
  readonly containerdSocket: string
  readonly clientCaFile: string
  /** undefined: it asks the cluster for its certificates, and renews them. */
  readonly serving: { readonly certFile: string; readonly keyFile: string } | undefined
  readonly clusterDns: string
  readonly clusterDomain: string
  readonly rootDir: string
  /** Manifests that the kubelet runs by itself. */
  readonly staticPodDir: string
  readonly resolvConf: string
  /** key=value:Effect or key:Effect, registered with the node. */
  readonly nodeTaint: readonly string[]
}

/** A cluster of one node has nowhere to move pods to: it gives up space later than upstream's 10 and 15%. */
const evictionHard = {
  'memory.available': '100Mi',
  'nodefs.available': '5%',
  'nodefs.inodesFree': '5%',
  'imagefs.available': '5%',
  'imagefs.inodesFree': '5%',
}

/** KubeletConfiguration v1beta1, as JSON, which is YAML. What is not named has upstream's default. */
export function renderKubeletConfig(options: KubeletOptions): string {
  const configuration = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    ...access(options),
    ...cgroups(options),
    containerRuntimeEndpoint: `unix://${options.containerdSocket}`,
    staticPodPath: options.staticPodDir,
    // The default is in /usr, which may be read-only.
    volumePluginDir: join(options.rootDir, 'volume-plugins'),
    clusterDNS: [options.clusterDns],
    clusterDomain: options.clusterDomain,
    resolvConf: options.resolvConf,
    // Chains of iptables that kube-proxy's nftables mode does not use; without them no iptables is needed.
    makeIPTablesUtilChains: options.proxyMode === 'iptables',
    registerWithTaints: options.nodeTaint.map(parseTaint),
    failSwapOn: false,
    evictionHard,
    featureGates: options.userNamespace ? { KubeletInUserNamespace: true } : undefined,
  }
  return `${JSON.stringify(configuration, undefined, 2)}\n`
}

/** Where `kubeadm join` puts the authorities that it has read; an agent of ours writes a path of its own. */
const kubeadmAuthorities = '/etc/kubernetes/pki/ca.crt'

/**
 * As YAML, the configuration of kubelets on other machines, as far as it is the same on all: they get and renew their
 * certificates by requests.
 */
export function renderSharedKubeletConfig(options: { clusterDns: string; clusterDomain: string }): string {
  return renderYaml({
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: kubeadmAuthorities },
    },
    authorization: { mode: 'Webhook' },
    clusterDNS: [options.clusterDns],
    clusterDomain: options.clusterDomain,
    evictionHard,
    failCgroupV1: false,
    failSwapOn: false,
    readOnlyPort: 0,
    rotateCertificates: true,
    serverTLSBootstrap: true,
    staticPodPath: '/etc/kubernetes/manifests',
  })
}

/** Who may ask: holders of the client authority's certificates and tokens, each checked with the API server. */
function access({ clientCaFile, serving }: KubeletOptions) {
  return {
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: clientCaFile },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: serving?.certFile,
    tlsPrivateKeyFile: serving?.keyFile,
    // The daemon of a server issues and renews both of the kubelet's certificates.
    rotateCertificates: serving === undefined,
    serverTLSBootstrap: serving === undefined,
    readOnlyPort: 0,
    healthzBindAddress: '127.0.0.1',
    healthzPort: ports.kubeletHealth.number,
    enableProfilingHandler: false,
    enableDebugFlagsHandler: false,
  } as const
}

export function cgroups(
  options: Pick<KubeletOptions, 'cgroupVersion' | 'cgroupDriver' | 'canLowerOomScore'>,
) {
  const { cgroupVersion, cgroupDriver, canLowerOomScore } = options
  return {
    cgroupDriver,
    // Since 1.35 the kubelet refuses cgroup v1 unless it is told not to (KEP-5573).
    failCgroupV1: cgroupVersion === 1 ? false : undefined,
    oomScoreAdj: canLowerOomScore ? undefined : 0,
  } as const
}

/** Config has checked the form; the value may be absent. */
function parseTaint(taint: string): { key: string; value: string | undefined; effect: string } {
  const [name = '', effect = ''] = taint.split(':')
  const [key = '', value] = name.split('=')
  return { key, value, effect }
}
