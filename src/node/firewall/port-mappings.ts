import { join } from 'node:path'
import { familyOf } from '../../base/address.ts'
import type { HostFiles } from '../facts/host-files.ts'
import { networkName } from '../render/cni-config.ts'

/** Where libcni keeps what it did for each pod (its default, which containerd does not change). */
export const cniResultsDir = '/var/lib/cni/results'

/** A pod with ports of the node, and how the plugin portmap is called for it. */
export interface PortMapping {
  readonly containerId: string
  /** NAMESPACE/NAME */
  readonly pod: string
  /** Of its addresses: the plugin maps the ports of each. */
  readonly families: readonly (4 | 6)[]
  readonly environment: Readonly<Record<string, string>>
  /** The standard input of ADD; undefined: what was kept of the pod does not say. */
  readonly request: string | undefined
}

/** libcni/api.go: cachedInfo. */
interface CachedInfo {
  readonly containerId?: string
  /** The list of plugins, in base64. */
  readonly config?: string
  readonly ifName?: string
  readonly netns?: string
  readonly cniArgs?: readonly (readonly [string, string])[]
  readonly capabilityArgs?: { readonly portMappings?: readonly { readonly hostIP?: unknown }[] }
  readonly result?: { readonly ips?: readonly { readonly address?: unknown }[] }
}

interface NetworkList {
  readonly cniVersion?: string
  readonly name?: string
  readonly plugins?: readonly { readonly type?: string }[]
}

/** Of the pods whose network namespace is there: what a reboot has left of others counts for nothing. */
export function readPortMappings(files: HostFiles): PortMapping[] {
  const names = files.list(cniResultsDir).filter((name) => name.startsWith(`${networkName}-`))
  return names.flatMap((name) => {
    const cached = parse<CachedInfo>(files.read(join(cniResultsDir, name)))
    const { containerId, netns, ifName } = cached ?? {}
    if (cached === undefined || containerId === undefined || netns === undefined || ifName === undefined)
      return []
    if ((cached.capabilityArgs?.portMappings ?? []).length === 0 || !files.exists(netns)) return []
    const args = cached.cniArgs ?? []
    const argument = (key: string) => args.find(([candidate]) => candidate === key)?.[1] ?? '?'
    return [
      {
        containerId,
        pod: `${argument('K8S_POD_NAMESPACE')}/${argument('K8S_POD_NAME')}`,
        families: familiesOf(cached),
        environment: {
          CNI_CONTAINERID: containerId,
          CNI_NETNS: netns,
          CNI_IFNAME: ifName,
          CNI_ARGS: args.map(([key, value]) => `${key}=${value}`).join(';'),
        },
        request: requestOf(cached),
      },
    ]
  })
}

export function isStillThere(files: HostFiles, { containerId, environment }: PortMapping): boolean {
  return files.exists(join(cniResultsDir, `${networkName}-${containerId}-${environment['CNI_IFNAME']}`))
}

/** A port that is of one address of the node alone is mapped in its family alone. */
function familiesOf({ capabilityArgs, result }: CachedInfo): (4 | 6)[] {
  const given = (values: readonly unknown[]) =>
    values.filter((value) => typeof value === 'string' && value !== '') as string[]
  const own = given((result?.ips ?? []).map(({ address }) => address)).map(familyOf)
  const mappings = capabilityArgs?.portMappings ?? []
  const hosts = given(mappings.map(({ hostIP }) => hostIP)).map(familyOf)
  const isOfAll = hosts.length < mappings.length
  return own.filter((family) => isOfAll || hosts.includes(family))
}

/** As libcni makes it: the plugin's own part of the list, with what the list and the runtime say. */
function requestOf({ config, capabilityArgs, result }: CachedInfo): string | undefined {
  const list = parse<NetworkList>(config && Buffer.from(config, 'base64').toString('utf8'))
  const plugin = list?.plugins?.find(({ type }) => type === 'portmap')
  if (list === undefined || plugin === undefined || result === undefined) return undefined
  return JSON.stringify({
    ...plugin,
    cniVersion: list.cniVersion,
    name: list.name,
    runtimeConfig: { portMappings: capabilityArgs?.portMappings },
    prevResult: result,
  })
}

/** A file that is being written is looked at again. */
function parse<Value>(text: string | undefined): Value | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as Value)
  } catch {
    return undefined
  }
}
