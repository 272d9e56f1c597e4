import { join } from 'node:path'
import { ports } from '../../config/ports.ts'
import { cgroups, type KubeletOptions } from './kubelet-config.ts'

/** The last one. */
export const daemonLayer = '90-daemon.conf'

export function kubeletLayersDir(etcDir: string): string {
  return join(etcDir, 'kubelet.d')
}

export interface KubeletAloneOptions
  extends Pick<
    KubeletOptions,
    | 'cgroupVersion'
    | 'cgroupDriver'
    | 'canLowerOomScore'
    | 'userNamespace'
    | 'clientCaFile'
    | 'rootDir'
    | 'resolvConf'
  > {
  readonly serving: { readonly certFile: string; readonly keyFile: string }
  readonly profile: 'closed' | 'container'
  /** Of the CRI, without unix://. */
  readonly runtimeSocket: string
  readonly staticPodDir: string
  readonly bindAddress: string
  /** A user's KubeletConfiguration. */
  readonly own: Readonly<Record<string, unknown>> | undefined
}

/**
 * What the kubelet puts over standalone.yaml, in this order (--config-dir): a key of a later file takes the place of that of an
 * earlier one, objects are merged. Each is a KubeletConfiguration v1beta1 as JSON, which is YAML.
 */
export function renderKubeletLayers(options: KubeletAloneOptions): Readonly<Record<LayerName, string>> {
  const layers: Record<LayerName, Readonly<Record<string, unknown>>> = {
    '10-machine.conf': {
      ...cgroups(options),
      resolvConf: options.resolvConf,
      // The default is in /usr, which may be read-only.
      volumePluginDir: join(options.rootDir, 'volume-plugins'),
      featureGates: options.userNamespace ? { KubeletInUserNamespace: true } : undefined,
    },
    '20-profile.conf': options.profile === 'container' ? openProfile : {},
    '50-own.conf': options.own ?? {},
    [daemonLayer]: {
      ...{ address: options.bindAddress, port: ports.kubelet.number },
      authentication: { x509: { clientCAFile: options.clientCaFile } },
      tlsCertFile: options.serving.certFile,
      tlsPrivateKeyFile: options.serving.keyFile,
      containerRuntimeEndpoint: `unix://${options.runtimeSocket}`,
      staticPodPath: options.staticPodDir,
      // By this it is known whether it still rejects a file (cluster/kubelet/static-pods.ts).
      fileCheckFrequency: '20s',
      healthzBindAddress: '127.0.0.1',
      healthzPort: ports.kubeletHealth.number,
    },
  }
  const head = { apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration' }
  return Object.fromEntries(
    Object.entries(layers).map(([name, keys]) => [
      name,
      `${JSON.stringify({ ...keys, ...head }, undefined, 2)}\n`,
    ]),
  ) as Record<LayerName, string>
}

type LayerName = '10-machine.conf' | '20-profile.conf' | '50-own.conf' | typeof daemonLayer

/** What a container needs that has no cgroups of its own to order, and no user but one. */
const openProfile = {
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  failSwapOn: false,
}
