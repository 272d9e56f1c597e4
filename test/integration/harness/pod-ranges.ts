import { contains, overlaps, parseAddress, parseRange, type Range } from '../../../src/base/address.ts'
import type { Cluster } from './cluster.ts'
import type { Machine } from './machine.ts'

/**
 * The range of the pods of a machine's Node, of each family. Which one it is, is not known before: the allocator of
 * kube-controller-manager (pkg/controller/nodeipam) goes on with the next one where it has given one back.
 */
export async function podRanges(server: Cluster, { hostName: name }: Machine): Promise<Range[]> {
  const { spec } = await server.get<{ spec: { podCIDRs: string[] } }>('node', name)
  return spec.podCIDRs.map((text) => {
    const range = parseRange(text)
    if (range === undefined) throw new Error(`the Node ${name} has no range: ${text}`)
    return range
  })
}

export function isWithin(ranges: readonly Range[], text: string): boolean {
  const address = parseAddress(text)
  return address !== undefined && ranges.some((range) => contains(range, address))
}

export function areApart(some: readonly Range[], others: readonly Range[]): boolean {
  return !some.some((range) => others.some((other) => overlaps(range, other)))
}
