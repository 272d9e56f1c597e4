import { isIP, isIPv4 } from 'node:net'

/** Addresses and ranges as numbers, so that overlaps are comparisons. */
export interface Address {
  readonly family: 4 | 6
  readonly bits: bigint
}

/** A block of addresses; `first` is its network address. */
export interface Range {
  readonly first: Address
  readonly prefix: number
}

/** No zone ("fe80::1%eth0"): an address has to mean the same everywhere. */
export function parseAddress(text: string): Address | undefined {
  if (text.includes('%') || isIP(text) === 0) return undefined
  return isIPv4(text)
    ? { family: 4, bits: joinGroups(text.split('.').map(Number), 8n) }
    : { family: 6, bits: joinGroups(groupsOfIPv6(text), 16n) }
}

/** Host bits that are set are no error here: compare `formatRange` of the answer with the text. */
export function parseRange(text: string): Range | undefined {
  const match = /^([^/]+)\/(0|[1-9][0-9]{0,2})$/.exec(text)
  const address = parseAddress(match?.[1] ?? '')
  const prefix = Number(match?.[2])
  if (address === undefined || prefix > width(address)) return undefined
  const hostBits = BigInt(width(address) - prefix)
  return { first: { ...address, bits: (address.bits >> hostBits) << hostBits }, prefix }
}

export function formatRange({ first, prefix }: Range): string {
  return `${formatAddress(first)}/${prefix}`
}

/** What a setting has for each family, the first one first: "10.244.0.0/16,fd00:244::/48". */
export function ofFamilies(text: string): string[] {
  return text.split(',')
}

/** The one by which everything goes that has but one. */
export function firstOf(text: string): string {
  return text.split(',', 1)[0] ?? ''
}

/** Of an address or a range that is known to be one. */
export function familyOf(text: string): 4 | 6 {
  return text.includes(':') ? 6 : 4
}

/** IPv6 in the form of RFC 5952, as Go prints it. */
export function formatAddress({ family, bits }: Address): string {
  if (family === 4) return splitGroups(bits, { count: 4, size: 8n }).join('.')
  const groups = splitGroups(bits, { count: 8, size: 16n }).map((group) => group.toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
}

export function contains(range: Range, address: Address): boolean {
  if (range.first.family !== address.family) return false
  const hostBits = BigInt(width(address) - range.prefix)
  return address.bits >> hostBits === range.first.bits >> hostBits
}

export function overlaps(one: Range, other: Range): boolean {
  return contains(one, other.first) || contains(other, one.first)
}

/** The address `offset` places after the network address; undefined beyond the end of the range. */
export function addressAt(range: Range, offset: number): Address | undefined {
  const address = { ...range.first, bits: range.first.bits + BigInt(offset) }
  return contains(range, address) ? address : undefined
}

export function isLoopback(address: Address): boolean {
  return contains(loopback[address.family], address)
}

export function isUnspecified(address: Address): boolean {
  return address.bits === 0n
}

export function isLinkLocal(address: Address): boolean {
  return contains(linkLocal[address.family], address)
}

export function isMulticast(address: Address): boolean {
  return contains(multicast[address.family], address)
}

/** 240.0.0.0/4, with the broadcast address in it. */
export function isReserved({ family, bits }: Address): boolean {
  return family === 4 && bits >> 28n === 15n
}

const loopback = { 4: knownRange('127.0.0.0/8'), 6: knownRange('::1/128') }
const linkLocal = { 4: knownRange('169.254.0.0/16'), 6: knownRange('fe80::/10') }
const multicast = { 4: knownRange('224.0.0.0/4'), 6: knownRange('ff00::/8') }

function knownRange(text: string): Range {
  const range = parseRange(text)
  if (range === undefined) throw new Error(`bug: ${text} is no range`)
  return range
}

function width(address: Address): 32 | 128 {
  return address.family === 4 ? 32 : 128
}

/** The eight groups of an address that isIP has accepted: at most one "::", perhaps an IPv4 tail. */
function groupsOfIPv6(text: string): number[] {
  const [head = [], tail] = text.split('::').map((part) => part.split(':').filter(Boolean).flatMap(groupsOf))
  if (tail === undefined) return head
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function groupsOf(part: string): number[] {
  if (!part.includes('.')) return [Number.parseInt(part, 16)]
  const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number)
  return [a * 256 + b, c * 256 + d]
}

function joinGroups(groups: readonly number[], size: bigint): bigint {
  return groups.reduce((bits, group) => (bits << size) | BigInt(group), 0n)
}

function splitGroups(bits: bigint, { count, size }: { count: number; size: bigint }): number[] {
  return Array.from({ length: count }, (_, index) =>
    Number((bits >> (BigInt(count - 1 - index) * size)) & ((1n << size) - 1n)),
  )
}
