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
  isLinkLocal,
  isLoopback,
  isUnspecified,
  parseAddress,
  parseRange,
} from '../../base/address.ts'
import type { NodeConfig } from '../../config/config.ts'
import { type InterfaceAddress, loopbackAddresses, readInterfaceAddresses } from './addresses.ts'
import type { HostFiles } from './host-files.ts'

/** What the choice depends on. */
export interface Network {
  readonly addresses: readonly InterfaceAddress[]
  /** The source address of the default route. */
  readonly routeSource: string | undefined
  /** The one that the Node had before. */
  readonly last: string | undefined
}

type AddressSettings = Pick<NodeConfig, 'nodeIp' | 'clusterCidr' | 'serviceCidr'>

export interface NodeAddress {
  readonly address: string
  /** An interface has it; otherwise the network is away, or --node-ip is wrong. */
  readonly isPresent: boolean
}

const preference = ['plain', 'tunnel', 'passing'] as const

/** undefined: this machine has none, and never had. */
export function chooseNodeAddress(settings: AddressSettings, network: Network): NodeAddress | undefined {
  const { addresses, routeSource, last } = network
  const isPresent = (address: string) => addresses.some((entry) => entry.address === address)
  if (settings.nodeIp !== undefined) {
    return { address: settings.nodeIp, isPresent: isPresent(settings.nodeIp) }
  }
  const isUsable = (address: string) => whyNot(settings, address) === undefined
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
  const reasons = addresses.flatMap(({ interface: name, address, kind }) => {
    const reason = whyNot(settings, address) ?? (kind === 'bridge' ? 'is a bridge of containers' : undefined)
    return reason === undefined ? [] : [{ isOther: reason === otherFamily, address, name, reason }]
  })
  const isSix = settings.serviceCidr.includes(':')
  // Those of the other family say something where there are no others: who has but IPv6 must ask for it.
  const own = reasons.filter(({ address }) => address.includes(':') === isSix)
  const shown = own.length > 0 ? own : reasons.filter(({ isOther }) => isOther)
  if (shown.length === 0) return 'no interface that is up has one'
  const family = (six: boolean) => (six ? 'IPv6' : 'IPv4')
  const foreign = `is ${family(!isSix)}, and service-cidr ${settings.serviceCidr} is ${family(isSix)}`
  return shown
    .map(({ address, name, isOther, reason }) => `${address} on ${name} ${isOther ? foreign : reason}`)
    .join('; ')
}

const otherFamily = 'is of the other family'

/** Why an address cannot be the Node's; undefined: it can. */
function whyNot({ clusterCidr, serviceCidr }: AddressSettings, text: string): string | undefined {
  const address = parseAddress(text)
  if (address === undefined || isLinkLocal(address)) return 'is link-local'
  if (isLoopback(address) || isUnspecified(address)) return 'is the loopback address'
  const ranges = Object.entries({ 'cluster-cidr': clusterCidr, 'service-cidr': serviceCidr })
  for (const [name, range] of ranges) {
    const parsed = parseRange(range)
    if (parsed === undefined) continue
    if (parsed.first.family !== address.family) return otherFamily
    if (contains(parsed, address)) return `lies in ${name} ${range}`
  }
  return undefined
}

/** Looks at this machine; sends nothing. `held` is what the daemon keeps on lo, and no network brings. */
export async function readNetwork(
  files: HostFiles,
  given: { serviceCidr: string; last: string | undefined; held: string | undefined },
): Promise<Network> {
  const { serviceCidr, last, held } = given
  const onLoopback = loopbackAddresses().filter((address) => address !== held)
  return {
    addresses: [
      ...readInterfaceAddresses(files),
      ...onLoopback.map((address) => ({ interface: 'lo', address, kind: 'loopback' as const })),
    ],
    routeSource: await defaultRouteSource(serviceCidr.includes(':') ? 6 : 4),
    last,
  }
}

/** Addresses for documentation (RFC 5737, RFC 3849), which only a default route leads to. */
const faraway = { 4: '203.0.113.1', 6: '2001:db8::1' }

function defaultRouteSource(family: 4 | 6): Promise<string | undefined> {
  return routeSource(faraway[family])
}

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
