/*
 * Which Service has which addresses: pure, from all Services, Nodes and EndpointSlices that count.
 *
 * Of each Node that is Ready and not excluded, and for each family of a Service: its external addresses, or else its internal ones. A port of the
 * nodes is one Service's alone: its who has it, or else the oldest one's that asks. A Service gets all of its ports, or none.
 */
import { familyOf } from '../../base/address.ts'
import { type BalancingNode, type Family, ofFamily, type ServiceFacts, type SliceFacts } from './facts.ts'
import type { HolderOf } from './reserved-ports.ts'

/** Whose EndpointSlice says where the API servers are; its name is theirs alone. */
const apiServers = 'default/kubernetes'

export interface Known {
  readonly services: ReadonlyMap<string, ServiceFacts>
  readonly nodes: ReadonlyMap<string, BalancingNode>
  readonly slices: ReadonlyMap<string, SliceFacts>
}

export interface Refusal {
  readonly kind: 'PortReserved' | 'PortConflict' | 'AddressUnknown'
  readonly reason: string
}

export interface Assignment {
  readonly addresses: ReadonlyMap<string, readonly string[]>
  readonly refused: ReadonlyMap<string, Refusal>
}

/** Remembers who has which ports. */
export class Assigner {
  readonly #holderOf: HolderOf
  /** What a Service was given, by its uid. */
  #given: ReadonlyMap<string, string> | undefined

  constructor(holderOf: HolderOf) {
    this.#holderOf = holderOf
  }

  assign({ services, nodes, slices }: Known): Assignment {
    const addresses = new Map<string, readonly string[]>()
    const refused = new Map<string, Refusal>()
    const taken = new Map<string, string>()
    const given = new Map<string, string>()
    const apiPorts = slices.get(apiServers)?.ports ?? []
    const able = ableNodes(nodes)
    const ofSlices = nodesOfServices(slices)
    const ours = [...services].filter(([, { writtenBy }]) => writtenBy === undefined)
    for (const [key, service] of ours.toSorted((a, b) => this.#compare(a, b))) {
      const refusal =
        this.#reserved(service, apiPorts) ?? conflict(service, taken) ?? unknownAddress(service, able)
      if (refusal !== undefined) {
        refused.set(key, refusal)
        addresses.set(key, [])
        continue
      }
      for (const claim of claimsOf(service)) taken.set(claim, key)
      given.set(service.uid, claimsOf(service).join())
      addresses.set(key, addressesOf(service, able, ofSlices.get(key)))
    }
    this.#given = given
    return { addresses, refused }
  }

  #reserved({ ports }: ServiceFacts, apiPorts: readonly string[]): Refusal | undefined {
    for (const port of ports) {
      const holder = apiPorts.includes(port) ? 'the API server' : this.#holderOf(port)
      if (holder !== undefined)
        return {
          kind: 'PortReserved',
          reason: `port ${port} of the nodes belongs to ${holder}, and to no Service: choose another port`,
        }
    }
    return undefined
  }

  /** Who has its ports comes first, then the oldest. At the start, whose addresses are ours has them. */
  #compare([keyA, a]: [string, ServiceFacts], [keyB, b]: [string, ServiceFacts]): number {
    const has = (one: ServiceFacts) =>
      this.#given === undefined ? one.isWritten : this.#given.get(one.uid) === claimsOf(one).join()
    return (
      Number(has(b)) - Number(has(a)) || compareTexts(a.createdAt, b.createdAt) || compareTexts(keyA, keyB)
    )
  }
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Ports of the nodes, by family: one of IPv4 and one of IPv6 are in nobody's way. */
function claimsOf({ families, ports }: ServiceFacts): string[] {
  return families.flatMap((family) => ports.map((port) => `${port} by IPv${family}`))
}

function conflict(service: ServiceFacts, taken: ReadonlyMap<string, string>): Refusal | undefined {
  for (const claim of claimsOf(service)) {
    const holder = taken.get(claim)
    if (holder !== undefined)
      return {
        kind: 'PortConflict',
        reason: `port ${claim.split(' ')[0]} of the nodes is that of the Service ${holder}: this one gets its addresses when that one gives it up`,
      }
  }
  return undefined
}

type Nodes = readonly (readonly [name: string, facts: BalancingNode])[]

/** In the order of their names. Where none is Ready, taking away what there is would help nobody. */
function ableNodes(nodes: ReadonlyMap<string, BalancingNode>): Nodes {
  const all = [...nodes].filter(([, { isExcluded }]) => !isExcluded)
  const ready = all.filter(([, { isReady }]) => isReady)
  return (ready.length > 0 ? ready : all).toSorted(([a], [b]) => compareTexts(a, b))
}

function unknownAddress({ wanted, families }: ServiceFacts, nodes: Nodes): Refusal | undefined {
  if (wanted === undefined) return undefined
  const isKnown = nodes.some(([, { external, internal }]) => [...external, ...internal].includes(wanted))
  if (isKnown && families.includes(familyOf(wanted))) return undefined
  return {
    kind: 'AddressUnknown',
    reason: `no Node that is Ready has the address ${JSON.stringify(wanted)}, of a family of the Service: leave spec.loadBalancerIP away, or name one that a Node has`,
  }
}

type LocalNodes = Readonly<Record<Family, ReadonlySet<string>>>

/** On which Nodes a Service has endpoints that are ready. */
function nodesOfServices(slices: ReadonlyMap<string, SliceFacts>): ReadonlyMap<string, LocalNodes> {
  const found = new Map<string, Record<Family, Set<string>>>()
  for (const { service, family, nodes } of slices.values()) {
    const ofService = found.get(service) ?? { 4: new Set(), 6: new Set() }
    for (const node of nodes) ofService[family].add(node)
    found.set(service, ofService)
  }
  return found
}

function addressesOf(service: ServiceFacts, nodes: Nodes, local: LocalNodes | undefined): string[] {
  const found = new Set<string>()
  for (const family of service.families) {
    for (const [name, { external, internal }] of nodes) {
      if (service.isLocal && local?.[family].has(name) !== true) continue
      const [outside, inside] = [ofFamily(external, family), ofFamily(internal, family)]
      const usual = outside.length > 0 ? outside : inside
      const asked = [...outside, ...inside].filter((address) => address === service.wanted)
      for (const address of service.wanted === undefined ? usual : asked) found.add(address)
    }
  }
  return [...found]
}
