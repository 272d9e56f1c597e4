/*
 * What is kept of policies, namespaces and pods. They are written by users of the cluster, and looked at as such: what is no
 * address, no port or no selector allows nothing, and what is too long is cut off, which allows less than was said.
 */
import { type Address, familyOf, parseRange } from '../../base/address.ts'
import type { WatchedObject } from '../../api/watch.ts'
import { arrayOf, objectOf, ordinaryAddress } from '../untrusted.ts'
import { addressUnion, blockWithout, type Interval, portUnion } from './intervals.ts'
import { type Labels, labelsOf, parseSelector, type Selector } from './selector.ts'

export type Family = Address['family']
export const protocols = ['tcp', 'udp', 'sctp'] as const
export type Protocol = (typeof protocols)[number]

/** Of one policy: peers, ports and blocks of addresses with their exceptions, of all its rules. */
const partsLimit = 2_000
/** Containers of a pod have no more than that with a name, as far as it is looked at. */
const namedPortsLimit = 256

export interface NamedPort {
  readonly name: string
  readonly protocol: Protocol
  readonly port: number
}

export interface PodFacts {
  readonly namespace: string
  readonly name: string
  /** Those that the container runtime knows it by: of a mirror pod, that of the file. */
  readonly uids: readonly string[]
  readonly createdAt: string
  readonly labels: Labels
  readonly nodeName: string
  /** Its own; none of a pod that has ended, or that has its node's. */
  readonly addresses: readonly string[]
  readonly ports: readonly NamedPort[]
  readonly isOver: boolean
}

/** What an object may reach, or be reached by. */
export interface PolicyRule {
  /** undefined: anybody. */
  readonly peers: Peers | undefined
  /** undefined: any, of any protocol. */
  readonly ports: Ports | undefined
}

export interface Peers {
  readonly pods: readonly PodPeers[]
  readonly blocks: Readonly<Record<Family, readonly Interval<bigint>[]>>
}

export interface PodPeers {
  /** undefined: the policy's own namespace. */
  readonly namespaces: Selector | undefined
  readonly pods: Selector
}

export interface Ports {
  /** undefined: none of that protocol. */
  readonly numbers: Readonly<Partial<Record<Protocol, readonly Interval<number>[]>>>
  readonly names: readonly Omit<NamedPort, 'port'>[]
}

export interface PolicyFacts {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly selector: Selector
  /** undefined: it says nothing of that direction. */
  readonly ingress: readonly PolicyRule[] | undefined
  readonly egress: readonly PolicyRule[] | undefined
  readonly namesSctp: boolean
  /** What of it is not enforced as it stands there. */
  readonly problems: readonly string[]
}

const anyPort: Interval<number> = { from: 0, to: 65_535 }

export function namespaceFacts({ metadata }: WatchedObject): [string, Labels] | undefined {
  const { name, labels } = metadata ?? {}
  return typeof name === 'string' ? [name, labelsOf(labels) ?? {}] : undefined
}

export function podFacts({ metadata, ...object }: WatchedObject): [string, PodFacts] | undefined {
  const { name, namespace, uid, labels, annotations, creationTimestamp } = metadata ?? {}
  if (typeof name !== 'string' || typeof namespace !== 'string') return undefined
  const spec = (object.spec ?? {}) as Record<string, unknown>
  const status = (object.status ?? {}) as Record<string, unknown>
  const isOver = status['phase'] === 'Succeeded' || status['phase'] === 'Failed'
  const hasOwnNetwork = spec['hostNetwork'] !== true && !isOver
  const staticUid = (labelsOf(annotations) ?? {})['kubernetes.io/config.hash']
  const facts: PodFacts = {
    ...{ namespace, name, isOver },
    uids: [uid, staticUid].filter((one) => typeof one === 'string'),
    createdAt: typeof creationTimestamp === 'string' ? creationTimestamp : '',
    labels: labelsOf(labels) ?? {},
    nodeName: typeof spec['nodeName'] === 'string' ? spec['nodeName'] : '',
    addresses: hasOwnNetwork ? addressesOf(status) : [],
    ports: hasOwnNetwork ? namedPortsOf(spec) : [],
  }
  return [`${namespace}/${name}`, facts]
}

function addressesOf({ podIP, podIPs }: Record<string, unknown>): string[] {
  const entries = arrayOf(podIPs).map((entry) => objectOf(entry)['ip'])
  const texts = entries.length > 0 ? entries : [podIP]
  const found = texts.flatMap((text) => ordinaryAddress(text) ?? [])
  // One of each family.
  return found.filter(
    (text, index) => found.findIndex((other) => familyOf(other) === familyOf(text)) === index,
  )
}

function namedPortsOf({ containers, initContainers }: Record<string, unknown>): NamedPort[] {
  const found: NamedPort[] = []
  // Sidecars are among the latter; of others nothing listens when they are done.
  for (const container of [...arrayOf(containers), ...arrayOf(initContainers)]) {
    for (const entry of arrayOf(objectOf(container)['ports'])) {
      const { name, protocol, containerPort } = objectOf(entry)
      const known = protocolOf(protocol)
      if (typeof name !== 'string' || !isPort(containerPort) || known === undefined) continue
      if (found.length < namedPortsLimit) found.push({ name, protocol: known, port: containerPort })
    }
  }
  return found
}

export function policyFacts({ metadata, spec: given }: WatchedObject): [string, PolicyFacts] | undefined {
  const { name, namespace, uid } = metadata ?? {}
  if (typeof name !== 'string' || typeof namespace !== 'string') return undefined
  const reader = new RuleReader()
  const spec = objectOf(given)
  const selector = reader.selector(spec['podSelector'] ?? {})
  const directions = {
    ingress: reader.rules(spec['ingress'], 'from'),
    egress: reader.rules(spec['egress'], 'to'),
  }
  const types = arrayOf(spec['policyTypes'])
  // The API server's defaults, should they not be there.
  const hasType = (type: string, otherwise: boolean) =>
    types.length === 0 ? otherwise : types.includes(type)
  const facts: PolicyFacts = {
    ...{ namespace, name, uid: typeof uid === 'string' ? uid : '', selector },
    ingress: hasType('Ingress', true) ? directions.ingress : undefined,
    egress: hasType('Egress', directions.egress.length > 0) ? directions.egress : undefined,
    namesSctp: reader.namesSctp,
    problems: [...reader.problems],
  }
  return [`${namespace}/${name}`, facts]
}

/** Selects nothing: what is no selector allows nothing. */
const nothing: Selector = { key: 'nothing', wanted: undefined, matches: () => false }

class RuleReader {
  readonly problems = new Set<string>()
  namesSctp = false
  #parts = 0

  selector(given: unknown): Selector {
    const selector = parseSelector(given)
    if (selector === undefined)
      this.problems.add('a selector of it is none that is known here, and selects nothing')
    return selector ?? nothing
  }

  rules(given: unknown, peers: 'from' | 'to'): PolicyRule[] {
    return arrayOf(given).map((entry) => {
      const rule = objectOf(entry)
      return { peers: this.#peers(arrayOf(rule[peers])), ports: this.#ports(arrayOf(rule['ports'])) }
    })
  }

  #isTooMany(): boolean {
    if (++this.#parts <= partsLimit) return false
    this.problems.add(
      `it has more than ${partsLimit} peers and ports; what those beyond would allow is refused`,
    )
    return true
  }

  #peers(given: readonly unknown[]): Peers | undefined {
    if (given.length === 0) return undefined
    const pods: PodPeers[] = []
    const blocks: Record<Family, Interval<bigint>[]> = { 4: [], 6: [] }
    for (const entry of given) {
      if (this.#isTooMany()) break
      const { ipBlock, podSelector, namespaceSelector } = objectOf(entry)
      if (ipBlock !== undefined && ipBlock !== null) this.#block(objectOf(ipBlock), blocks)
      else if (podSelector ?? namespaceSelector)
        pods.push({
          namespaces: namespaceSelector ? this.selector(namespaceSelector) : undefined,
          pods: this.selector(podSelector ?? {}),
        })
    }
    return { pods, blocks: { 4: addressUnion(blocks[4]), 6: addressUnion(blocks[6]) } }
  }

  #block({ cidr, except }: Record<string, unknown>, blocks: Record<Family, Interval<bigint>[]>): void {
    const block = typeof cidr === 'string' ? parseRange(cidr) : undefined
    const holes = arrayOf(except).map((text) => (typeof text === 'string' ? parseRange(text) : undefined))
    if (block === undefined || holes.includes(undefined)) {
      this.problems.add('a block of addresses of it is none, and allows nothing')
      return
    }
    // A block with too many holes would be one without them.
    if (holes.some(() => this.#isTooMany())) return
    const { family } = block.first
    const known = holes.filter((hole) => hole?.first.family === family).filter((hole) => hole !== undefined)
    blocks[family].push(...blockWithout(block, known))
  }

  #ports(given: readonly unknown[]): Ports | undefined {
    if (given.length === 0) return undefined
    const numbers: Partial<Record<Protocol, Interval<number>[]>> = {}
    const names = new Map<string, Omit<NamedPort, 'port'>>()
    for (const entry of given) {
      if (this.#isTooMany()) break
      const { protocol: text, port, endPort } = objectOf(entry)
      const protocol = protocolOf(text)
      if (protocol === 'sctp') this.namesSctp = true
      if (protocol === undefined)
        this.problems.add('a protocol of it is none of TCP, UDP and SCTP, and allows nothing')
      else if (typeof port === 'string') names.set(`${protocol} ${port}`, { protocol, name: port })
      else {
        const interval = portsOf(port, endPort)
        if (interval === undefined) this.problems.add('a port of it is none, and allows nothing')
        else (numbers[protocol] ??= []).push(interval)
      }
    }
    const merged = Object.entries(numbers).map(([protocol, intervals]) => [protocol, portUnion(intervals)])
    return { numbers: Object.fromEntries(merged) as Ports['numbers'], names: [...names.values()] }
  }
}

function portsOf(port: unknown, endPort: unknown): Interval<number> | undefined {
  if (port === undefined || port === null) return anyPort
  if (!isPort(port)) return undefined
  if (endPort === undefined || endPort === null) return { from: port, to: port }
  return isPort(endPort) && endPort >= port ? { from: port, to: endPort } : undefined
}

export function isEveryPort(intervals: readonly Interval<number>[]): boolean {
  return intervals.some(({ from, to }) => from <= 1 && to === anyPort.to)
}

function isPort(given: unknown): given is number {
  return typeof given === 'number' && Number.isInteger(given) && given >= 1 && given <= anyPort.to
}

function protocolOf(given: unknown): Protocol | undefined {
  return protocols.find((protocol) => protocol.toUpperCase() === (given ?? 'TCP'))
}
