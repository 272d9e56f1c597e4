import { keepObjects, type WatchAccess, type WatchedObject } from '../api/watch.ts'
import type { NodeFacts } from './desired.ts'

export const nodesPath = '/api/v1/nodes'
/** Of what a Node says of itself; more is not looked at. */
const entriesLimit = 8
const textLimit = 128

interface NodeWatchOptions extends WatchAccess {
  /** Gets all Nodes, whenever what is looked at of one has changed. */
  readonly onChange: (nodes: ReadonlyMap<string, NodeFacts>) => void
}

/** Watches all Nodes until the signal fires. What is kept of each is a few texts: they tell again and again that they are there, which nobody hears. */
export function watchNodes(options: NodeWatchOptions): Promise<void> {
  return keepObjects<NodeFacts>({ ...options, path: nodesPath, factsOf })
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
