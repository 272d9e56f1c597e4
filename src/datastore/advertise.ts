import { existsSync } from 'node:fs'
import { type NetworkInterfaceInfo, hostname, networkInterfaces } from 'node:os'

import { isLinkLocal, isUnspecified, parseAddress } from '../base/address.ts'
import { AppError } from '../base/errors.ts'

/** The names of a server's certificate. */
export interface Names {
  hasName(host: string): boolean
  readonly names: readonly string[]
}

/** Where a server listens. */
export interface Place {
  /** As it was given, and the address that it was bound to. */
  readonly host: string
  readonly address: string
  readonly port: number
  /** Without TLS there are none. */
  readonly certificate?: Names | undefined
}

/** A machine as the choice sees it. */
export interface Machine {
  readonly hostname: string
  /** Without loopback and link-local ones; those that are for containers alone come last. */
  readonly addresses: readonly string[]
}

const loopbackNames = ['localhost', '127.0.0.1', '::1']

/**
 * Where clients are told to go (MemberList) when nobody says it: to where the server listens, or, when that is every
 * address, to those of the machine. With TLS it has to be a name that the certificate has. Throws DATASTORE_ADVERTISE
 * when there is none.
 */
export function chooseClientUrls(place: Place, machine: Machine): string[] {
  const { certificate, port } = place
  const scheme = certificate === undefined ? 'http' : 'https'
  const chosen = candidates(place, machine).find(({ length }) => length > 0)
  if (chosen !== undefined) {
    return chosen.map((host) => `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`)
  }
  throw new AppError('cannot tell clients where to go: the certificate has no name of this machine', {
    code: 'DATASTORE_ADVERTISE',
    remedy: 'Say it with --advertise-client-urls=https://NAME:PORT, with a name that the certificate has.',
  })
}

/** Hosts to choose from, the best first. */
function candidates({ host, address, certificate }: Place, machine: Machine): string[][] {
  const bound = parseAddress(address)
  const isEverywhere = bound !== undefined && isUnspecified(bound)
  // The unspecified IPv6 address stands for those of IPv4, too.
  const own = machine.addresses.filter((each) => bound?.family === 6 || !each.includes(':'))
  if (certificate === undefined) return isEverywhere ? [own, ['127.0.0.1']] : [[address]]
  const valid = (hosts: readonly string[]) => hosts.filter((each) => certificate.hasName(each))
  if (!isEverywhere) {
    // A client that goes to the address by itself may check another name.
    return [valid([address]), valid([host]), [...certificate.names], [address]]
  }
  const names = certificate.names.filter((name) => !loopbackNames.includes(name))
  return [valid(own), valid([machine.hostname]), names, valid(loopbackNames)]
}

export function readMachine(
  entries: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
  isBridge = (name: string): boolean => existsSync(`/sys/class/net/${name}/bridge`),
): Machine {
  const plain: string[] = []
  const bridges: string[] = []
  for (const [name, addresses = []] of Object.entries(entries)) {
    for (const { address, internal } of addresses) {
      const parsed = parseAddress(address)
      if (internal || parsed === undefined || isLinkLocal(parsed)) continue
      if (isBridge(name)) bridges.push(address)
      else plain.push(address)
    }
  }
  return { hostname: hostname(), addresses: plain.length > 0 ? plain : bridges }
}
