import { isIPv4, isIPv6 } from 'node:net'

/** The bytes of an address in network order: 4 of IPv4, 16 of IPv6; undefined when it is neither. */
export function addressBytes(address: string): Buffer | undefined {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number))
  // Most that is asked are names, and isIPv6 compiles an expression of 2 kB at its first use.
  if (!address.includes(':') || address.includes('%') || !isIPv6(address)) return undefined
  return Buffer.from(ipv6Groups(address).flatMap((group) => [group >> 8, group & 0xff]))
}

/** The eight groups of a valid IPv6 address, "::" filled and a dotted tail (::ffff:1.2.3.4) folded in. */
function ipv6Groups(address: string): number[] {
  const [head = '', tail] = address
    .replace(/[\d.]+$/, (end) => (end.includes('.') ? dottedToGroups(end) : end))
    .split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => parseInt(group, 16)))
  if (tail === undefined) return groups(head)
  const missing = 8 - groups(head).length - groups(tail).length
  return [...groups(head), ...Array<number>(missing).fill(0), ...groups(tail)]
}

function dottedToGroups(dotted: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = dotted.split('.').map(Number)
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
}

/** The first address after a range's own, which the API server takes for the `kubernetes` Service. */
export function firstAddress(cidr: string): string {
  const [base = '', prefix] = cidr.split('/')
  const bytes = addressBytes(base)
  if (bytes === undefined || prefix === undefined) throw new RangeError(`cannot read the range ${cidr}`)
  const bits = bytes.length * 8
  const hostBits = BigInt(bits - Number(prefix))
  const value = ((BigInt(`0x${bytes.toString('hex')}`) >> hostBits) << hostBits) + 1n
  return addressText(Buffer.from(value.toString(16).padStart(bits / 4, '0'), 'hex'))
}

/** 10.96.0.1 or fd00:0:0:0:0:0:0:1; IPv6 is not shortened. */
function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  return Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16)).join(':')
}
