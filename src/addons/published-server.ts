import { clusterInfoName } from './joining.ts'
import type { Api } from '../api/client.ts'

/** Where the Service `kubernetes` finds the servers. */
const endpointsName = {
  apiVersion: 'v1',
  kind: 'Endpoints',
  metadata: { name: 'kubernetes', namespace: 'default' },
} as const

interface Subset {
  readonly addresses?: readonly { readonly ip?: string }[]
}

/**
 * The server that cluster-info names: the one that it has named before, as long as that is one of the servers, or else `own`. Whichever of
 * them writes it, it stays the same: who joins sees its signature change, and would take it for a forged one.
 */
export async function publishedServer(api: Pick<Api, 'get'>, own: string): Promise<string> {
  const [info, endpoints] = await Promise.all([api.get(clusterInfoName), api.get(endpointsName)])
  const { kubeconfig = '' } = (info?.['data'] ?? {}) as { kubeconfig?: string }
  const named = /^\s*"?server"?: "?(https:\/\/[^"\s]+)"?$/m.exec(kubeconfig)?.[1]
  if (named === undefined) return own
  const subsets = (endpoints?.['subsets'] ?? []) as readonly Subset[]
  const addresses = subsets.flatMap((subset) => (subset.addresses ?? []).map(({ ip = '' }) => ip))
  const { hostname } = new URL(named)
  return addresses.includes(hostname.replace(/^\[|\]$/g, '')) ? named : own
}
