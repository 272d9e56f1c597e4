/*
 * Which address is the Node's, unless --node-ip says so: the first of these that there is.
 *
 *    the last one used          while an interface has it: an address that stays is never given up for another
 *    the default route's        what the kernel would send from, whatever the interface is
 *    a plain interface's        then a tunnel's, then one that will pass; bridges of containers and lo never are
 *    the last one used          although no interface has it: the network is away
 *
 * Addresses of the loopback interface, link-local ones and those in the ranges of the cluster are passed over.
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import {
  contains,
  familyOf,
  firstOf,
  isLinkLocal,
  isLoopback,
  isUnspecified,
  ofFamilies,
  parseAddress,
  parseRange,
} from '../../base/address.ts'
import type { MachineConfig } from '../../config/config.ts'
import { type InterfaceAddress, loopbackAddresses, readInterfaceAddresses } from './addresses.ts'
import type { HostFiles } from './host-files.ts'

/** What the choice of an address of one family depends on. */
interface FamilyNetwork {
  /** The source address of the default route. */
  readonly routeSource: string | undefined
  /** The one that the Node had before. */
  readonly last: string | undefined
}

/** What this machine has. */
export interface Network extends FamilyNetwork {
  readonly addresses: readonly InterfaceAddress[]
  /** In a cluster of both families, the same of the second one. */
  readonly other?: FamilyNetwork
}

/** A node alone has no Services. */
type AddressSettings = Pick<MachineConfig, 'nodeIp' | 'clusterCidr'> & { readonly serviceCidr?: string }

export interface NodeAddress {
  readonly address: string
  /** An interface has it; otherwise the network is away, or --node-ip is wrong. */
  readonly isPresent: boolean
}

const preference = ['plain', 'tunnel', 'passing'] as const

/** That of the cluster's first family; undefined: this machine has none, and never had. */
export function chooseNodeAddress(settings: AddressSettings, network: Network): NodeAddress | undefined {
  const [family = 4, otherFamily] = familiesOf(settings)
  const given = ofFamilies(settings.nodeIp ?? '')
  // An agent's own is as its user has written it, whatever the cluster is.
  const own =
    given.find((address) => familyOf(address) === family) ??
    (otherFamily === undefined ? given[0] : undefined)
  return choose(settings, network, { family, own: own || undefined, ...network })
}

/** Of the cluster's second family, where there is one: what an interface has, since nothing depends on it. */
export function chooseOtherAddress(settings: AddressSettings, network: Network): string | undefined {
  const [, family] = familiesOf(settings)
  if (family === undefined || network.other === undefined) return undefined
  const own = ofFamilies(settings.nodeIp ?? '').find(
    (address) => address !== '' && familyOf(address) === family,
  )
  const chosen = choose(settings, network, { family, own, ...network.other })
  return chosen?.isPresent === true ? chosen.address : undefined
}

/** Those of the cluster, the first one first. */
function familiesOf({ serviceCidr, clusterCidr }: Omit<AddressSettings, 'nodeIp'>): (4 | 6)[] {
  return ofFamilies(serviceCidr ?? clusterCidr).map(familyOf)
}

function choose(
  settings: AddressSettings,
  { addresses }: Pick<Network, 'addresses'>,
  given: FamilyNetwork & { family: 4 | 6; own: string | undefined },
): NodeAddress | undefined {
  const { family, own, routeSource, last } = given
  const isPresent = (address: string) => addresses.some((entry) => entry.address === address)
  if (own !== undefined) return { address: own, isPresent: isPresent(own) }
  const isUsable = (address: string) => whyNot(settings, family, address) === undefined
  const usable = addresses.filter(({ address }) => isUsable(address))
  const known = last !== undefined && isUsable(last) ? last : undefined
  if (known !== undefined && isPresent(known)) return { address: known, isPresent: true }
  const isPassing = usable.some(({ address, kind }) => address === routeSource && kind === 'passing')
  if (routeSource !== undefined && isUsable(routeSource) && !isPassing)
    return { address: routeSource, isPresent: true }
  const best = preference
    .map((kind) => usable.find((entry) => entry.kind === kind))
    .find((entry) => entry !== undefined)
  if (best !== undefined) return { address: best.address, isPresent: true }
  return known === undefined ? undefined : { address: known, isPresent: false }
}

/** One line for somebody who waits: each address of this machine, and why it cannot be the Node's. */
export function describePassedOver(
  settings: AddressSettings,
  { addresses }: Pick<Network, 'addresses'>,
): string {
  const rangeName = settings.serviceCidr === undefined ? 'cluster-cidr' : 'service-cidr'
  const first = firstOf(settings.serviceCidr ?? settings.clusterCidr)
  const wanted = familyOf(first)
  const reasons = addresses.flatMap(({ interface: name, address, kind }) => {
    const reason =
      whyNot(settings, wanted, address) ?? (kind === 'bridge' ? 'is a bridge of containers' : undefined)
    return reason === undefined ? [] : [{ isOther: reason === otherFamily, address, name, reason }]
  })
  // Those of the other family say something where there are no others: who has but IPv6 must ask for it.
  const own = reasons.filter(({ address }) => familyOf(address) === wanted)
  const shown = own.length > 0 ? own : reasons.filter(({ isOther }) => isOther)
  if (shown.length === 0) return 'no interface that is up has one'
  const foreign = `is IPv${wanted === 4 ? 6 : 4}, and ${rangeName} ${first} is IPv${wanted}`
  return shown
    .map(({ address, name, isOther, reason }) => `${address} on ${name} ${isOther ? foreign : reason}`)
    .join('; ')
}

const otherFamily = 'is of the other family'

/** Why an address cannot be the Node's of this family; undefined: it can. */
function whyNot(
  { clusterCidr, serviceCidr }: AddressSettings,
  family: 4 | 6,
  text: string,
): string | undefined {
  const address = parseAddress(text)
  if (address === undefined || isLinkLocal(address)) return 'is link-local'
  if (isLoopback(address) || isUnspecified(address)) return 'is the loopback address'
  if (address.family !== family) return otherFamily
  const ranges = Object.entries({ 'cluster-cidr': clusterCidr, 'service-cidr': serviceCidr ?? '' })
  for (const [name, texts] of ranges) {
    for (const range of ofFamilies(texts)) {
      const parsed = parseRange(range)
      if (parsed !== undefined && contains(parsed, address)) return `lies in ${name} ${range}`
    }
  }
  return undefined
}

/** Looks at this machine; sends nothing. `held` is what the daemon keeps on lo, and no network brings. */
export async function readNetwork(
  files: HostFiles,
  given: Omit<AddressSettings, 'nodeIp'> & {
    last: string | undefined
    otherLast?: string | undefined
    held: string | undefined
  },
): Promise<Network> {
  const { last, otherLast, held } = given
  const [family = 4, otherFamily] = familiesOf(given)
  const onLoopback = loopbackAddresses().filter((address) => address !== held)
  return {
    addresses: [
      ...readInterfaceAddresses(files),
      ...onLoopback.map((address) => ({ interface: 'lo', address, kind: 'loopback' as const })),
    ],
    routeSource: await routeSource(faraway[family]),
    last,
    ...(otherFamily !== undefined && {
      other: { routeSource: await routeSource(faraway[otherFamily]), last: otherLast },
    }),
  }
}

/** Addresses for documentation (RFC 5737, RFC 3849), which only a default route leads to. */
const faraway = { 4: '203.0.113.1', 6: '2001:db8::1' }

/**
 * The address that is sent from to this one; undefined: nothing leads there from this machine. The kernel chooses it when a UDP
 * socket is connected; nothing is sent.
 */
export async function routeSource(address: string): Promise<string | undefined> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  try {
    socket.connect(9, address)
    await once(socket, 'connect')
    return socket.address().address
  } catch {
    // No route: a machine without a network runs a cluster of its own.
    return undefined
  } finally {
    socket.close()
  }
}
