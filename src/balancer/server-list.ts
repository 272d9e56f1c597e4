import { isIP, isIPv6 } from 'node:net'
import type { ApiAccess } from '../api/client.ts'
import { keepObjects } from '../api/watch.ts'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'

const slicesPath =
  '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes'
/** At most, after which a watch that has ended is begun anew. */
const retryMs = 2_000
/** No cluster has more servers; what is beyond is passed over. */
const serversLimit = 64

/** What is looked at of an EndpointSlice. */
interface EndpointSlice {
  readonly endpoints?: readonly { readonly addresses?: readonly unknown[] }[] | null
  readonly ports?: readonly { readonly name?: string; readonly port?: unknown }[] | null
}

/** The API servers that the slices of the Service default/kubernetes name, sorted. Pure; what it cannot read it passes over. */
export function serversIn(slices: readonly EndpointSlice[]): string[] {
  const found = slices.flatMap(({ endpoints, ports }) => {
    const port = ports?.find(({ name }) => name === 'https')?.port ?? ports?.[0]?.port
    if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) return []
    const addresses = (endpoints ?? []).flatMap((endpoint) => endpoint.addresses ?? [])
    return addresses.flatMap((address) =>
      typeof address === 'string' && isIP(address) !== 0
        ? [`https://${isIPv6(address) ? `[${address}]` : address}:${port}`]
        : [],
    )
  })
  return sorted(found)
}

function sorted(servers: readonly string[]): string[] {
  return [...new Set(servers)].sort().slice(0, serversLimit)
}

interface FollowOptions {
  /** How it is asked: through the balancer itself. */
  readonly access: ApiAccess
  readonly onList: (endpoints: readonly string[]) => void
  readonly log: Logger
  readonly signal: AbortSignal
}

/** Tells of the list of servers, and again whenever the cluster says that it has changed, until the signal fires. */
export function followServers({ access, onList, log, signal }: FollowOptions): Promise<void> {
  return keepObjects<readonly string[]>({
    ...{ access, signal, path: slicesPath, longestPauseMs: retryMs },
    factsOf: (object) => [String(object.metadata?.name), serversIn([object as EndpointSlice])],
    onChange: (slices) => onList(sorted([...slices.values()].flat())),
    onTrouble(error) {
      if (error !== undefined)
        log.debug({ reason: describeError(error) }, 'cannot read the list of servers; it is read again')
    },
  })
}
