import { parseAddress, parseRange, contains } from '../../../../src/base/address.ts'
import type { PolicyEngine } from '../../../../src/network/policy/engine.ts'
import { mapName, selfName } from '../../../../src/network/policy/names.ts'
import { familyOf } from '../../../../src/base/address.ts'
import { isWithin } from '../../../../src/network/policy/intervals.ts'
import type { Direction, Line } from '../../../../src/network/policy/ruleset.ts'
import type { World } from './objects.ts'

export interface Packet {
  readonly from: string
  readonly to: string
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly port: number
}

/** What the kernel would do with the first packet of a connection, as nft.ts writes the rules. */
export function passes({ rules }: PolicyEngine, packet: Packet): boolean {
  return (['egress', 'ingress'] as const).every((direction) => {
    const [own, other] = direction === 'egress' ? [packet.from, packet.to] : [packet.to, packet.from]
    const family = familyOf(own)
    if (rules.sets.get(selfName(family))?.elements.has(`${packet.from} . ${packet.to}`)) return true
    const pod = rules.sets.get(mapName(direction, family))?.elements.get(own)
    if (pod === undefined) return true
    const chain = rules.chains.get(pod)
    if (chain?.policies === undefined) throw new Error(`no chain of a pod: ${pod}`)
    return chain.policies.some((name) => {
      const found = rules.chains.get(name)
      if (found === undefined) throw new Error(`no chain ${name}`)
      return found.lines.some((line) => holds(line, other, packet))
    })
  })

  function holds(
    { addresses, ports, endpoints }: Line,
    other: string,
    { protocol, port, to }: Packet,
  ): boolean {
    if (addresses !== undefined) {
      if (addresses.family !== familyOf(other)) return false
      if ('set' in addresses) {
        if (!elements(addresses.set).has(other)) return false
      } else if (!isWithin(addresses.blocks, parseAddress(other)!.bits)) return false
    }
    if (ports !== undefined) {
      if (
        ports.protocol !== protocol ||
        !ports.numbers.some(({ from, to: last }) => from <= port && port <= last)
      )
        return false
    }
    if (endpoints === undefined) return true
    return (
      endpoints.protocol === protocol &&
      endpoints.family === familyOf(to) &&
      elements(endpoints.set).has(`${to} . ${port}`)
    )
  }

  function elements(name: string): ReadonlyMap<string, string> {
    const set = rules.sets.get(name)
    if (set === undefined) throw new Error(`no set ${name}`)
    return set.elements
  }
}

/*
 * The same from the text of the API (k8s.io/api/networking/v1), as plainly as it can be said.
 */

interface Peer {
  readonly podSelector?: Selector
  readonly namespaceSelector?: Selector
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] }
}

interface Selector {
  readonly matchLabels?: Record<string, string>
  readonly matchExpressions?: readonly { key: string; operator: string; values?: readonly string[] }[]
}

interface Port {
  readonly protocol?: string
  readonly port?: number | string
  readonly endPort?: number
}

interface Rule {
  readonly from?: readonly Peer[]
  readonly to?: readonly Peer[]
  readonly ports?: readonly Port[]
}

interface Spec {
  readonly podSelector: Selector
  readonly policyTypes?: readonly string[]
  readonly ingress?: readonly Rule[]
  readonly egress?: readonly Rule[]
}

interface PodObject {
  readonly metadata: { readonly namespace: string; readonly labels: Record<string, string> }
  readonly spec: {
    readonly nodeName: string
    readonly hostNetwork: boolean
    readonly containers: readonly {
      ports: readonly { name: string; protocol?: string; containerPort: number }[]
    }[]
  }
  readonly status: { readonly phase: string; readonly podIPs: readonly { ip: string }[] }
}

/** Whether the packet passes this node (`here`), by the policies themselves. */
export function isAllowed(world: World, packet: Packet): boolean {
  const pods = [...world.pods.values()] as unknown as PodObject[]
  const owner = (address: string) =>
    pods.find(
      ({ spec, status }) =>
        !spec.hostNetwork &&
        !['Succeeded', 'Failed'].includes(status.phase) &&
        status.podIPs.some(({ ip }) => ip === address),
    )
  const [from, to] = [owner(packet.from), owner(packet.to)]
  if (from !== undefined && from === to) return true
  return side('egress', from, to, packet.to) && side('ingress', to, from, packet.from)

  function side(
    direction: Direction,
    own: PodObject | undefined,
    other: PodObject | undefined,
    otherAddress: string,
  ) {
    if (own?.spec.nodeName !== 'here') return true
    const selecting = [...world.policies.values()].filter((policy) => {
      const spec = policy.spec as Spec
      return (
        policy.metadata?.namespace === own.metadata.namespace &&
        typesOf(spec).includes(direction) &&
        selects(spec.podSelector, own.metadata.labels)
      )
    })
    if (selecting.length === 0) return true
    return selecting.some((policy) =>
      ((policy.spec as Spec)[direction] ?? []).some(
        (rule) =>
          peersMatch(
            direction === 'ingress' ? rule.from : rule.to,
            own.metadata.namespace,
            other,
            otherAddress,
          ) && portsMatch(rule.ports, direction === 'ingress' ? own : other),
      ),
    )
  }

  function peersMatch(
    peers: readonly Peer[] | undefined,
    own: string,
    pod: PodObject | undefined,
    address: string,
  ): boolean {
    if (peers === undefined || peers.length === 0) return true
    return peers.some(({ podSelector, namespaceSelector, ipBlock }) => {
      if (ipBlock !== undefined) return inBlock(ipBlock, address)
      if (pod === undefined) return false
      const { namespace } = pod.metadata
      const labels = world.namespaces.get(namespace)?.metadata?.labels as Record<string, string> | undefined
      const inScope =
        namespaceSelector === undefined
          ? namespace === own
          : labels !== undefined && selects(namespaceSelector, labels)
      return inScope && selects(podSelector ?? {}, pod.metadata.labels)
    })
  }

  function portsMatch(ports: readonly Port[] | undefined, reached: PodObject | undefined): boolean {
    if (ports === undefined || ports.length === 0) return true
    return ports.some(({ protocol = 'TCP', port, endPort }) => {
      if (protocol.toLowerCase() !== packet.protocol) return false
      if (port === undefined) return true
      if (typeof port === 'number') return port <= packet.port && packet.port <= (endPort ?? port)
      return (reached?.spec.containers ?? []).some((container) =>
        container.ports.some(
          (one) =>
            one.name === port && (one.protocol ?? 'TCP') === protocol && one.containerPort === packet.port,
        ),
      )
    })
  }
}

function typesOf({ policyTypes, egress = [] }: Spec): string[] {
  const types = policyTypes ?? ['Ingress', ...(egress.length > 0 ? ['Egress'] : [])]
  return types.map((type) => type.toLowerCase())
}

function selects(
  { matchLabels = {}, matchExpressions = [] }: Selector,
  labels: Record<string, string>,
): boolean {
  const valueOf = (key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined)
  return (
    Object.entries(matchLabels).every(([key, value]) => valueOf(key) === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = valueOf(key)
      const has = value !== undefined
      if (operator === 'Exists') return has
      if (operator === 'DoesNotExist') return !has
      return operator === 'In' ? has && values.includes(value) : !has || !values.includes(value)
    })
  )
}

function inBlock({ cidr, except = [] }: NonNullable<Peer['ipBlock']>, address: string): boolean {
  const inside = (text: string) => contains(parseRange(text)!, parseAddress(address)!)
  return inside(cidr) && !except.some(inside)
}

/** Sets and chains as text, to be compared. */
export function textOf({ rules }: PolicyEngine): string {
  const sets = [...rules.sets.values()].map(
    ({ name, kind, elements }) =>
      `${name} ${kind} ${[...elements]
        .map(([key, value]) => `${key}=${value}`)
        .toSorted()
        .join()}`,
  )
  return [...sets, ...rules.chains.keys()].toSorted().join('\n')
}
