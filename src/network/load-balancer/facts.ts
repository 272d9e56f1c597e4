/*
 * What is kept of Services, Nodes and EndpointSlices for load balancing. Users and kubelets write them, and may write anything.
 */
import {
  type Address,
  contains,
  familyOf,
  formatAddress,
  isReserved,
  parseAddress,
  type Range,
} from '../../base/address.ts'
import type { WatchedObject } from '../../api/watch.ts'
import { arrayOf, objectOf, ordinaryAddress, textOf } from '../untrusted.ts'

export type Family = Address['family']

/** The class by which a Service asks for nodes' addresses by name; it gets them without any class, too. */
export const loadBalancerClass = 'k8s.local/node'
/** By which managed fields say that we have written a Service's addresses. */
export const statusManager = 'k8s-servicelb'
/** What k3s' own load balancer calls itself there, which runs no more where its data were imported, and what it holds Services with. */
const formerManager = 'k3s'
const formerFinalizer = 'service.kubernetes.io/load-balancer-cleanup'

const exclusionLabel = 'node.kubernetes.io/exclude-from-external-load-balancers'
export const serviceNameLabel = 'kubernetes.io/service-name'
/** Of one Node, and of each kind; more is not looked at. */
const addressesLimit = 8
/** Of what should be an address. */
const textLimit = 64

/** Of a Service whose addresses are ours to write. */
export interface ServiceFacts {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly version: string
  readonly createdAt: string
  /** "80/TCP", in its order. */
  readonly ports: readonly string[]
  readonly families: readonly Family[]
  /** Only Nodes that have one of its pods answer (externalTrafficPolicy). */
  readonly isLocal: boolean
  /** spec.loadBalancerIP */
  readonly wanted: string | undefined
  /** What its status has; one that we would not have written is ''. */
  readonly addresses: readonly string[]
  /** Who else has written them; what he wrote is not touched. */
  readonly writtenBy: string | undefined
  /** By us, or by whom we come after. */
  readonly isWritten: boolean
  /** Those that are left when the one goes that nobody else would take away any more; undefined: there is none. */
  readonly finalizers: readonly string[] | undefined
}

export interface BalancingNode {
  readonly isReady: boolean
  readonly isExcluded: boolean
  readonly external: readonly string[]
  readonly internal: readonly string[]
}

/** Of one EndpointSlice: the Nodes that have ready endpoints, and the ports. */
export interface SliceFacts {
  /** namespace/name */
  readonly service: string
  readonly family: Family
  readonly nodes: readonly string[]
  readonly ports: readonly string[]
}

/** Whether there is something to take back. */
export function isHeld({ isWritten, finalizers }: ServiceFacts): boolean {
  return isWritten || finalizers !== undefined
}

/** undefined: it is no business of ours. */
export function serviceFacts({ metadata, ...object }: WatchedObject): [string, ServiceFacts] | undefined {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = metadata ?? {}
  if (typeof name !== 'string' || typeof namespace !== 'string') return undefined
  const spec = objectOf(object.spec)
  const itsClass = spec['loadBalancerClass'] ?? loadBalancerClass
  if (spec['type'] !== 'LoadBalancer' || itsClass !== loadBalancerClass) return undefined
  const addresses = arrayOf(objectOf(objectOf(object.status)['loadBalancer'])['ingress']).map(writtenAddress)
  const writer = ownerOf(metadata, ['f:status', 'f:loadBalancer', 'f:ingress'])
  const isOurs = writer === statusManager || writer === formerManager
  const facts: ServiceFacts = {
    ...{ namespace, name, uid: textOf(uid), version: textOf(resourceVersion) },
    createdAt: textOf(creationTimestamp),
    ports: arrayOf(spec['ports']).map(portText),
    families: arrayOf(spec['ipFamilies']).map((family) => (family === 'IPv6' ? 6 : 4)),
    isLocal: spec['externalTrafficPolicy'] === 'Local',
    wanted: wantedAddress(spec['loadBalancerIP']),
    addresses,
    writtenBy: isOurs || addresses.length === 0 ? undefined : writer,
    isWritten: isOurs && addresses.length > 0,
    finalizers: finalizersLeft(metadata),
  }
  return [`${namespace}/${name}`, facts]
}

function portText(given: unknown): string {
  const { port, protocol = 'TCP' } = objectOf(given)
  return `${Number(port)}/${textOf(protocol)}`
}

function wantedAddress(given: unknown): string | undefined {
  const text = textOf(given)
  const address = parseAddress(text)
  if (address !== undefined) return formatAddress(address)
  return text === '' ? undefined : text.slice(0, textLimit)
}

function writtenAddress(given: unknown): string {
  const { ip, ipMode, ...rest } = objectOf(given)
  return ipMode === 'VIP' && Object.keys(rest).length === 0 ? textOf(ip) : ''
}

function finalizersLeft(metadata: WatchedObject['metadata']): string[] | undefined {
  const all = arrayOf(metadata?.finalizers).map(textOf)
  const path = ['f:metadata', 'f:finalizers', `v:"${formerFinalizer}"`]
  if (!all.includes(formerFinalizer) || ownerOf(metadata, path) !== formerManager) return undefined
  return all.filter((name) => name !== formerFinalizer)
}

/** Who has written a field; undefined: nobody says that it was him. */
function ownerOf(metadata: WatchedObject['metadata'], path: readonly string[]): string | undefined {
  const owner = arrayOf(metadata?.managedFields)
    .map(objectOf)
    .find(({ fieldsV1 }) => path.reduce((fields, name) => objectOf(fields)[name], fieldsV1) !== undefined)
  return owner === undefined ? undefined : textOf(owner['manager'])
}

/** `ranges`: of pods and Services, in which no machine has an address. */
export function nodeFacts(
  { metadata, ...object }: WatchedObject,
  ranges: readonly Range[],
): [string, BalancingNode] | undefined {
  const { name, labels } = metadata ?? {}
  if (typeof name !== 'string') return undefined
  const status = objectOf(object.status)
  const entries = arrayOf(status['addresses']).map(objectOf)
  const of = (kind: string) =>
    entries
      .filter(({ type }) => type === kind)
      .flatMap(({ address }) => machineAddress(address, ranges) ?? [])
      .slice(0, addressesLimit)
  const facts = {
    isReady: arrayOf(status['conditions'])
      .map(objectOf)
      .some((condition) => condition['type'] === 'Ready' && condition['status'] === 'True'),
    isExcluded: Object.hasOwn(objectOf(labels), exclusionLabel),
    external: of('ExternalIP'),
    internal: of('InternalIP'),
  }
  return [name, facts]
}

function machineAddress(given: unknown, ranges: readonly Range[]): string | undefined {
  const text = ordinaryAddress(given)
  const address = text === undefined ? undefined : parseAddress(text)
  if (address === undefined || isReserved(address)) return undefined
  return ranges.some((range) => contains(range, address)) ? undefined : text
}

export function sliceFacts({ metadata, ...object }: WatchedObject): [string, SliceFacts] | undefined {
  const { name, namespace, labels } = metadata ?? {}
  if (typeof name !== 'string' || typeof namespace !== 'string') return undefined
  // A slice has these where others have their spec.
  const { addressType, endpoints, ports } = object as Record<string, unknown>
  const nodes = arrayOf(endpoints).flatMap((given) => {
    const { nodeName, conditions } = objectOf(given)
    return typeof nodeName === 'string' && objectOf(conditions)['ready'] !== false ? [nodeName] : []
  })
  const facts: SliceFacts = {
    service: `${namespace}/${textOf(objectOf(labels)[serviceNameLabel])}`,
    family: addressType === 'IPv6' ? 6 : 4,
    nodes: [...new Set(nodes)],
    ports: arrayOf(ports).map(portText),
  }
  return [`${namespace}/${name}`, facts]
}

/** Of addresses that are known to be such. */
export function ofFamily(addresses: readonly string[], family: Family): string[] {
  return addresses.filter((address) => familyOf(address) === family)
}
