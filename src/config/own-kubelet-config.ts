import { isLoopback, parseAddress } from '../base/address.ts'
import type { KubeletConfig } from './config.ts'
import { readYamlFile } from './table/file.ts'
import { usageError } from './table/setting.ts'

/** Keys that the daemon itself relies on, by their paths: with what to use instead, or why there is nothing else. */
const ownKeys: Readonly<Record<string, string>> = {
  address: 'use --kubelet-bind-address',
  'authentication.x509': 'the daemon has an authority of its own for it',
  containerRuntimeEndpoint: 'use --container-runtime-endpoint',
  fileCheckFrequency: 'the daemon relies on it to tell which files are rejected',
  enableServer: 'the daemon asks the kubelet for its pods',
  healthzBindAddress: 'the daemon asks the kubelet for its health there',
  healthzPort: 'the daemon asks the kubelet for its health there',
  port: 'the daemon asks the kubelet for its pods there',
  staticPodPath: 'use --manifests',
  tlsCertFile: 'the daemon issues it',
  tlsPrivateKeyFile: 'the daemon issues it',
}

type Keys = Readonly<Record<string, unknown>>

/**
 * The user's KubeletConfiguration, where there is one. Throws USAGE for what cannot be, and for what would let others
 * in of whom nobody has said so; what the kubelet does not know it says itself.
 */
export async function readOwnConfig(config: KubeletConfig): Promise<Keys | undefined> {
  const path = config.kubeletConfig
  const own = path === undefined ? undefined : await readYamlFile(path)
  if (path !== undefined && own !== undefined) {
    const { kind } = own
    if (kind !== undefined && kind !== 'KubeletConfiguration')
      throw usageError(`cannot use kind in ${path}: allowed is KubeletConfiguration`)
    for (const [name, instead] of Object.entries(ownKeys)) {
      const [first = '', second] = name.split('.')
      if (second === undefined ? Object.hasOwn(own, first) : valueAt(own, first, second) !== undefined)
        throw usageError(`cannot use ${name} in ${path}: it belongs to the daemon: ${instead}`)
    }
  }
  refuseOpenToOthers(config, own ?? {})
  return own
}

/** Whoever can ask the kubelet without a certificate is root on this machine, and reads the environment of its pods. */
function refuseOpenToOthers(config: KubeletConfig, own: Keys): void {
  const { kubeletBindAddress, insecure, profile, kubeletConfig } = config
  const address = parseAddress(kubeletBindAddress)
  if (insecure || (address !== undefined && isLoopback(address))) return
  const anonymous = valueAt(own, 'authentication', 'anonymous', 'enabled') ?? profile === 'container'
  const where = kubeletConfig === undefined ? '' : ` in ${kubeletConfig}`
  const open =
    anonymous !== false
      ? own['authentication'] === undefined
        ? 'the profile container'
        : `authentication.anonymous${where}`
      : ![undefined, null, 0].includes(own['readOnlyPort'] as number | undefined | null)
        ? `readOnlyPort${where}`
        : undefined
  if (open === undefined) return
  throw usageError(
    `cannot use ${open} with kubelet-bind-address ${kubeletBindAddress}: other machines can reach it, and whoever asks is root here or sees what its pods are given; listen on loopback, such as 127.0.0.1, or give --insecure to serve everybody`,
  )
}

function valueAt(own: Keys, ...path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (value instanceof Object ? (value as Keys)[key] : undefined),
    own,
  )
}
