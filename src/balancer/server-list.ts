import { isIP, isIPv6 } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import { request, requestStream, type TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'

const retryMs = 2_000
/** How long a watch lasts before the list is read anew. */
const watchSeconds = 240
/** No cluster has more servers; what is beyond is passed over. */
const serversLimit = 64

/** What is looked at of an EndpointSlice. */
interface EndpointSlice {
  readonly endpoints?: readonly { readonly addresses?: readonly unknown[] }[] | null
  readonly ports?: readonly { readonly name?: string; readonly port?: unknown }[] | null
}

interface SliceList {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly items?: readonly EndpointSlice[]
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
  return [...new Set(found)].sort().slice(0, serversLimit)
}

interface FollowOptions {
  /** Where it is asked: through the balancer itself. */
  readonly server: string
  readonly identity: () => Promise<TlsIdentity>
  readonly onList: (endpoints: readonly string[]) => void
  readonly log: Logger
  readonly signal: AbortSignal
}

/** Reads the list of servers, and again whenever the cluster says that it has changed, until the signal fires. */
export async function followServers(options: FollowOptions): Promise<void> {
  const { onList, log, signal } = options
  while (!signal.aborted) {
    try {
      const list = await readSlices(options)
      onList(serversIn(list.items ?? []))
      await untilChange(options, list.metadata?.resourceVersion ?? '')
      continue
    } catch (error) {
      log.debug({ reason: describeError(error) }, 'cannot read the list of servers; it is read again')
    }
    await sleep(retryMs, undefined, { signal, ref: false }).catch(() => {})
  }
}

function urlOf(server: string, query: Readonly<Record<string, string>> = {}): string {
  const parameters = new URLSearchParams({ labelSelector: 'kubernetes.io/service-name=kubernetes', ...query })
  return `${server}/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?${parameters.toString()}`
}

async function readSlices({ server, identity, signal }: FollowOptions): Promise<SliceList> {
  const url = urlOf(server)
  const { status, body } = await request({ url, tls: await identity(), signal })
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  return JSON.parse(body) as SliceList
}

/** Resolves with the first word of a watch, whatever it is, or when it ends. */
async function untilChange(
  { server, identity, signal }: FollowOptions,
  resourceVersion: string,
): Promise<void> {
  const url = urlOf(server, { watch: 'true', resourceVersion, timeoutSeconds: String(watchSeconds) })
  const { status, body } = await requestStream({
    ...{ url, tls: await identity(), signal },
    timeoutMs: (watchSeconds + 30) * 1000,
  })
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  for await (const _ of body) return
}
