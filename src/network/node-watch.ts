import type { NodeFacts } from './desired.ts'
import { type WatchAccess, type WatchedObject, watchObjects } from '../api/watch.ts'

/** Of what a Node says of itself; more is not looked at. */
const entriesLimit = 8
const textLimit = 128

export interface NodeWatchOptions<Facts = NodeFacts> extends WatchAccess {
  /** Gets all Nodes, whenever what is looked at of one has changed. */
  readonly onChange: (nodes: ReadonlyMap<string, Facts>) => void
}

/** Watches all Nodes until the signal fires. What is kept of each is a few texts. */
export function watchNodes(options: NodeWatchOptions): Promise<void> {
  return watchNodesFor(factsOf, options)
}

/** As `watchNodes`, for who looks at something else of them. They tell again and again that they are there, which nobody hears. */
export function watchNodesFor<Facts>(
  factsOf: (object: WatchedObject) => [string, Facts] | undefined,
  { onChange, ...access }: NodeWatchOptions<Facts>,
): Promise<void> {
  let nodes = new Map<string, Facts>()
  return watchObjects<Facts>({
    ...access,
    path: '/api/v1/nodes',
    factsOf,
    onAll(all) {
      nodes = all
      onChange(nodes)
    },
    onOne(name, facts) {
      if (JSON.stringify(nodes.get(name)) === JSON.stringify(facts)) return
      if (facts === undefined) nodes.delete(name)
      else nodes.set(name, facts)
      onChange(nodes)
    },
  })
}

function factsOf({ metadata, ...object }: WatchedObject): [string, NodeFacts] | undefined {
  const { name, creationTimestamp } = metadata ?? {}
  if (typeof name !== 'string') return undefined
  const spec = object.spec as { podCIDR?: unknown; podCIDRs?: unknown } | undefined
  const status = object.status as { addresses?: unknown } | undefined
  const ranges = Array.isArray(spec?.podCIDRs) ? (spec.podCIDRs as unknown[]) : [spec?.podCIDR]
  const entries = Array.isArray(status?.addresses) ? (status.addresses as unknown[]) : []
  const addresses = entries.flatMap((entry) => {
    const { type, address } = (entry ?? {}) as { type?: unknown; address?: unknown }
    return type === 'InternalIP' ? [address] : []
  })
  const facts = {
    name,
    createdAt: typeof creationTimestamp === 'string' ? creationTimestamp : '',
    podCidrs: texts(ranges),
    addresses: texts(addresses),
  }
  return [name, facts]
}

function texts(values: readonly unknown[]): string[] {
  const found = values.filter((value) => typeof value === 'string' && value !== '') as string[]
  return found.slice(0, entriesLimit).map((text) => text.slice(0, textLimit))
}
