import { isIPv4 } from 'node:net'

import { addressAt, formatAddress, parseAddress, parseRange } from '../base/address.ts'

/** The bytes of an address in network order: 4 of IPv4, 16 of IPv6; undefined when it is neither. */
export function addressBytes(text: string): Buffer | undefined {
  // Most that is asked are names, and isIPv6 compiles an expression of 2 kB at its first use.
  if (!isIPv4(text) && !text.includes(':')) return undefined
  const address = parseAddress(text)
  if (address === undefined) return undefined
  const digits = address.family === 4 ? 8 : 32
  return Buffer.from(address.bits.toString(16).padStart(digits, '0'), 'hex')
}

/** The first address after a range's own, which the API server takes for the `kubernetes` Service. */
export function firstAddress(cidr: string): string {
  const range = parseRange(cidr)
  const first = range === undefined ? undefined : addressAt(range, 1)
  if (first === undefined) throw new RangeError(`cannot read the range ${cidr}`)
  return formatAddress(first)
}
