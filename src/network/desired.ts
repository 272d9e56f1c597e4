/*
 * What this machine's kernel has to know of the other nodes: pure, from the list of Nodes. components/cni/network.go makes it so.
 *
 * A Node says of itself what it likes (its kubelet may register it with any range, and reports any address). So each is looked at:
 * it gets what is its own alone, and who claims more is left out, by name. Between two that claim the same range, the older one has
 * it. Who claims the address of another harms nobody else: what is meant for his own pods goes there, and is dropped.
 */
import { createHash } from 'node:crypto'
import {
  type Address,
  contains,
  formatAddress,
  formatRange,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isReserved,
  isUnspecified,
  overlaps,
  parseAddress,
  parseRange,
  type Range,
} from '../base/address.ts'
import { datagramPorts } from '../config/ports.ts'
import type { NetworkBackend } from '../config/settings/cluster.ts'
import { overlayDevice } from '../node/render/overlay.ts'

const vxlanIdentifier = 1
/** Kubernetes' own for a cluster. */
const nodesLimit = 5_000
/** Of what a Node says, in a message. */
const shownLength = 64

/** What is looked at of a Node. */
export interface NodeFacts {
  readonly name: string
  /** metadata.creationTimestamp, which the API server sets. */
  readonly createdAt: string
  readonly podCidrs: readonly string[]
  /** Its internal addresses. */
  readonly addresses: readonly string[]
}

export interface ClusterNetwork {
  readonly backend: NetworkBackend
  readonly clusterCidrs: readonly string[]
  readonly serviceCidrs: readonly string[]
  /** The device leaves checksums to the network card. */
  readonly checksumOffload: boolean
  /** The shortest prefix that a range of a Node has. */
  readonly shortestPrefix: { readonly 4: number; readonly 6: number }
}

/** The standard input of `cni network-apply`. */
export interface DesiredNetwork {
  readonly backend: NetworkBackend
  readonly deviceName: string
  readonly device?: {
    readonly address: string
    readonly mac: string
    readonly vni: number
    readonly port: number
    readonly checksumOffload: boolean
    readonly own: readonly string[]
  }
  readonly peers: readonly Peer[]
}

export interface Peer {
  readonly name: string
  readonly underlay?: string
  readonly mac?: string
  readonly routes: readonly { readonly range: string; readonly via: string }[]
}

export interface RefusedNode {
  readonly name: string
  readonly reason: string
}

/** Nothing of ours. */
export const noNetwork: DesiredNetwork = { backend: 'none', deviceName: overlayDevice, peers: [] }

/** A Node that has no range or no address yet is in neither answer, unless there is no range left for it. */
export function desiredNetwork(
  network: ClusterNetwork,
  own: Omit<NodeFacts, 'createdAt'>,
  others: readonly NodeFacts[],
): { desired: DesiredNetwork; refused: readonly RefusedNode[] } {
  const refused: RefusedNode[] = []
  const taken = new Taken(network, own)
  const peers: Peer[] = []
  const byAge = others.toSorted((a, b) => compare(a.createdAt, b.createdAt) || compare(a.name, b.name))
  const shortage = rangeShortage(network.clusterCidrs, [own, ...others])
  for (const node of byAge) {
    if (node.podCidrs.length === 0 && shortage !== undefined)
      refused.push({ name: node.name, reason: shortage })
    if (node.podCidrs.length === 0 || node.addresses.length === 0) continue
    const claim =
      peers.length < nodesLimit
        ? taken.claim(node)
        : `there are more than ${nodesLimit} Nodes, and it is one of the youngest`
    const peer = typeof claim === 'string' ? claim : peerOf(network.backend, own, claim)
    if (typeof peer === 'string') refused.push({ name: node.name, reason: peer })
    else peers.push(peer)
  }
  if (network.backend === 'none' || peers.length === 0) return { desired: noNetwork, refused }
  const desired = { backend: network.backend, deviceName: overlayDevice, peers }
  if (network.backend === 'host-gw') return { desired, refused }
  const device = {
    address: own.addresses[0] ?? '',
    mac: macOf(own.name),
    vni: vxlanIdentifier,
    port: datagramPorts.vxlan.number,
    checksumOffload: network.checksumOffload,
    own: own.podCidrs.flatMap(firstOf),
  }
  return { desired: { ...desired, device }, refused }
}

/** The same on every machine, so that none has to tell the others: locally administered, and nobody's group. */
export function macOf(nodeName: string): string {
  const digest = createHash('sha256').update(`k8s vxlan ${nodeName}`).digest()
  const bytes = [...digest.subarray(0, 6)]
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}

interface Claim {
  readonly name: string
  readonly ranges: readonly Range[]
  readonly addresses: readonly Address[]
}

/** What is somebody's already. */
class Taken {
  readonly #network: ClusterNetwork
  readonly #clusterRanges: readonly Range[]
  readonly #serviceRanges: readonly Range[]
  readonly #ownAddresses: readonly string[]
  readonly #macs = new Map<string, string>()
  /** The ranges of Nodes by the block of the shortest prefix in which they lie. */
  readonly #blocks = new Map<string, { range: Range; name: string }[]>()

  constructor(network: ClusterNetwork, own: Omit<NodeFacts, 'createdAt'>) {
    this.#network = network
    this.#clusterRanges = network.clusterCidrs.flatMap((text) => parseRange(text) ?? [])
    this.#serviceRanges = network.serviceCidrs.flatMap((text) => parseRange(text) ?? [])
    this.#ownAddresses = own.addresses
    this.#take({
      name: own.name,
      ranges: own.podCidrs.flatMap((text) => parseRange(text) ?? []),
      addresses: [],
    })
  }

  /** What the Node may have, or why it gets nothing. */
  claim({ name, podCidrs, addresses }: NodeFacts): Claim | string {
    const ranges: Range[] = []
    for (const text of podCidrs) {
      const range = parseRange(text)
      const reason = range === undefined ? 'is none' : this.#rangeFault(range, text)
      if (range === undefined || reason !== undefined) return `its range ${shown(text)} ${reason}`
      if (ranges.some(({ first }) => first.family === range.first.family))
        return `it has more than one range of IPv${range.first.family}`
      ranges.push(range)
    }
    const parsed: Address[] = []
    for (const text of addresses) {
      const address = parseAddress(text)
      const reason = address === undefined ? 'is none' : this.#addressFault(address)
      if (address === undefined || reason !== undefined) return `its address ${shown(text)} ${reason}`
      parsed.push(address)
    }
    const twin = this.#macs.get(macOf(name))
    if (twin !== undefined) return `its name gives it the MAC of the Node ${twin}`
    return this.#take({ name, ranges, addresses: parsed })
  }

  #take(claim: Claim): Claim {
    const { name, ranges } = claim
    for (const range of ranges) {
      const block = this.#blockOf(range)
      this.#blocks.set(block, [...(this.#blocks.get(block) ?? []), { range, name }])
    }
    this.#macs.set(macOf(name), name)
    return claim
  }

  #rangeFault(range: Range, text: string): string | undefined {
    if (formatRange(range) !== text) return `is written as no range is: ${formatRange(range)} would be one`
    const isInside = this.#clusterRanges.some(
      (cluster) => range.prefix >= cluster.prefix && contains(cluster, range.first),
    )
    if (!isInside) return `does not lie in cluster-cidr ${this.#network.clusterCidrs.join(',')}`
    const shortest = this.#network.shortestPrefix[range.first.family]
    if (range.prefix < shortest) return `is wider than that of a Node, which has /${shortest}`
    if (this.#serviceRanges.some((service) => overlaps(service, range)))
      return `overlaps with service-cidr ${this.#network.serviceCidrs.join(',')}`
    const holder = this.#blocks.get(this.#blockOf(range))?.find((entry) => overlaps(entry.range, range))
    return holder && `overlaps with that of the Node ${holder.name}`
  }

  #addressFault(address: Address): string | undefined {
    const isSpecial = [isLoopback, isLinkLocal, isMulticast, isUnspecified].some((is) => is(address))
    if (isSpecial || isReserved(address)) return 'is not one of a machine'
    if ([...this.#clusterRanges, ...this.#serviceRanges].some((range) => contains(range, address)))
      return 'lies in a range of the cluster'
    return this.#ownAddresses.includes(formatAddress(address)) ? "is this Node's" : undefined
  }

  #blockOf({ first, prefix }: Range): string {
    const shortest = Math.min(this.#network.shortestPrefix[first.family], prefix)
    const width = first.family === 4 ? 32n : 128n
    return `${first.family}:${first.bits >> (width - BigInt(shortest))}`
  }
}

function peerOf(
  backend: NetworkBackend,
  own: Pick<NodeFacts, 'addresses'>,
  { name, ranges, addresses }: Claim,
): Peer | string {
  if (backend === 'host-gw') {
    const routes = ranges.map((range) => {
      const via = addresses.find(({ family }) => family === range.first.family)
      return via && { range: formatRange(range), via: formatAddress(via) }
    })
    const known = routes.filter((route) => route !== undefined)
    if (known.length === routes.length) return { name, routes: known }
    return 'it has no address of the family of its range, by way of which host-gw would send'
  }
  const family = own.addresses[0]?.includes(':') === true ? 6 : 4
  const underlay = addresses.find((address) => address.family === family)
  if (underlay === undefined) return `it has no address of IPv${family}, which this Node has`
  return {
    name,
    underlay: formatAddress(underlay),
    mac: macOf(name),
    routes: ranges.map((range) => ({ range: formatRange(range), via: formatAddress(range.first) })),
  }
}

/** Why a Node without a range gets none; undefined: the controller manager has some left. */
export function rangeShortage(
  clusterCidrs: readonly string[],
  nodes: readonly Pick<NodeFacts, 'podCidrs'>[],
): string | undefined {
  const ranges = nodes.flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseRange(text) ?? []))
  for (const text of clusterCidrs) {
    const cluster = parseRange(text)
    if (cluster === undefined) continue
    const taken = ranges.filter(({ first, prefix }) => prefix >= cluster.prefix && contains(cluster, first))
    const share = taken.reduce((sum, { prefix }) => sum + 2 ** (cluster.prefix - prefix), 0)
    if (share >= 1)
      return `there is no range left for its pods: ${taken.length} Nodes have all of cluster-cidr ${text}; remove those that are gone (k8s node remove NAME)`
  }
  return undefined
}

/** The network address of a range, which no pod has: a node's own on the device. */
function firstOf(text: string): string[] {
  const range = parseRange(text)
  return range === undefined ? [] : [formatAddress(range.first)]
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, shownLength))
}
