import { addressUnion, formatInterval, type Interval } from './intervals.ts'
import { knownName, mapName, selfName } from './names.ts'
import { type Family, isEveryPort } from './facts.ts'
import {
  type Chain,
  type Changes,
  type Direction,
  directions,
  type Line,
  type NamedSet,
  type Ruleset,
} from './ruleset.ts'
import { bridgeName } from '../../node/render/cni-config.ts'
import { policyTable } from '../../node/firewall/nftables.ts'

const table = `inet ${policyTable}`
/** After the rules of others, which may refuse what they like. The one that asks who is reached comes second. */
const priorities: Readonly<Record<Direction, number>> = { egress: 5, ingress: 6 }
const own: Readonly<Record<Direction, string>> = { egress: 'saddr', ingress: 'daddr' }
const other: Readonly<Record<Direction, string>> = { egress: 'daddr', ingress: 'saddr' }
const everyAddress: Readonly<Record<Family, bigint>> = { 4: (1n << 32n) - 1n, 6: (1n << 128n) - 1n }

/** Of the first packets of connections; what belongs to one that was let through is not counted. */
const counters = [
  'ingress-allowed',
  'ingress-refused',
  'egress-allowed',
  'egress-refused',
  'unknown-refused',
] as const

/** Which addresses of this node's pods may be there before it is known whose they are. */
export interface Head {
  readonly families: readonly Family[]
  /** 10.244.1.0/24 */
  readonly ranges: readonly string[]
}

/** The table anew, at once: nothing passes in between. */
export function renderAll(rules: Ruleset, head: Head): string {
  const lines = [`add table ${table}`, `delete table ${table}`, `add table ${table}`]
  for (const name of counters) lines.push(`add counter ${table} ${name}`)
  const sets = [...rules.sets.values()]
  for (const set of sets) lines.push(addSet(set))
  for (const direction of directions) lines.push(...results(direction))
  lines.push(`add chain ${table} unknown`, rule('unknown', 'counter name "unknown-refused" drop'))
  lines.push(...addChains([...rules.chains.values()]))
  for (const set of sets) lines.push(...addElements(set, [...set.elements.keys()]))
  for (const direction of directions) lines.push(...baseChain(direction, head))
  return `${lines.join('\n')}\n`
}

/** What differs, at once. */
export function renderChanges({ sets, chains, elements }: Changes): string {
  const lines = sets.added.map(addSet)
  lines.push(...addChains(chains.added))
  for (const set of sets.added) lines.push(...addElements(set, [...set.elements.keys()]))
  for (const { set, removed } of elements)
    if (removed.length > 0) lines.push(`delete element ${table} ${set.name} { ${removed.join(', ')} }`)
  for (const { set, added } of elements) lines.push(...addElements(set, added))
  for (const { name } of chains.removed) lines.push(`flush chain ${table} ${name}`)
  for (const { name } of chains.removed) lines.push(`delete chain ${table} ${name}`)
  for (const { name } of sets.removed) lines.push(`delete set ${table} ${name}`)
  return `${lines.join('\n')}\n`
}

/** Lets addresses of which it is not known whose they are through, whatever else is there. */
export function renderKnown(addresses: readonly string[], family: Family): string {
  return `add element ${table} ${knownName(family)} { ${addresses.join(', ')} }\n`
}

/** Whether it is there or not: one that is not cannot be deleted before nft 1.0.8 (destroy). */
export const removal = `add table ${table}; delete table ${table}`

/**
 * What is read to see whether all is there. nft 1.0.6 reads all rules of the machine for some of these, and for `chains` it does not;
 * of two chains in one command it finds the first.
 */
export const look = {
  chains: 'list chains inet',
  rules: directions.map((direction) => `list chain ${table} ${direction}`),
  counters: `list counters table ${table}`,
} as const

/** By the chains that `look` reads: a firewall that is loaded anew takes them away. */
export function isThere(text: string): boolean {
  const [, own = ''] = text.split(`table ${table} {`)
  const [chains = ''] = own.split('\n}')
  return directions.every((direction) =>
    new RegExp(`\\tchain ${direction} \\{\\s+type filter hook forward`).test(chains),
  )
}

export interface Counts {
  readonly allowed: Readonly<Record<Direction, number>>
  readonly refused: Readonly<Record<Direction, number>>
}

/** undefined: they are not there any more. */
export function readCounts(text: string): Counts | undefined {
  const read = (result: string) =>
    directions.map((direction) => {
      const [, packets] = new RegExp(`counter ${direction}-${result} \\{\\s*packets (\\d+)`).exec(text) ?? []
      return [direction, Number(packets)] as const
    })
  const [allowed, refused] = [read('allowed'), read('refused')]
  if ([...allowed, ...refused].some(([, packets]) => Number.isNaN(packets))) return undefined
  return {
    allowed: Object.fromEntries(allowed) as Counts['allowed'],
    refused: Object.fromEntries(refused) as Counts['refused'],
  }
}

/** By the rules of the chains by which all packets go. */
export function isWhole(text: string, { families }: Head): boolean {
  return directions.every((direction) =>
    families.every((family) =>
      text.includes(`${word(family)} ${own[direction]} vmap @${mapName(direction, family)}`),
    ),
  )
}

function results(direction: Direction): string[] {
  return [
    `add chain ${table} ${direction}-allow`,
    rule(`${direction}-allow`, `counter name "${direction}-allowed" accept`),
    `add chain ${table} ${direction}-refuse`,
    // Not rejected: who asks again a moment later may be known by then.
    rule(`${direction}-refuse`, `counter name "${direction}-refused" drop`),
  ]
}

function baseChain(direction: Direction, { families, ranges }: Head): string[] {
  const { [direction]: address } = own
  const lines = [
    `add chain ${table} ${direction} { type filter hook forward priority ${priorities[direction]}; policy accept; }`,
    rule(direction, 'ct state established,related accept'),
    // How pods of one bridge find each other with IPv6, as ARP is with IPv4: it belongs to no connection.
    rule(direction, 'icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'),
  ]
  // Addresses that pods have given themselves belong to none of them, by which the rules could go: between pods they are not used.
  for (const each of ['saddr', 'daddr'])
    lines.push(
      rule(
        direction,
        `iifname "${bridgeName}" oifname "${bridgeName}" ip6 ${each} fe80::/10 meta l4proto { tcp, udp, sctp } goto ${direction}-refuse`,
      ),
    )
  for (const family of families) {
    const ip = word(family)
    lines.push(
      rule(direction, `${ip} saddr . ${ip} daddr @${selfName(family)} accept`),
      rule(direction, `${ip} ${address} vmap @${mapName(direction, family)}`),
    )
    for (const range of ranges.filter((text) => text.includes(':') === (family === 6)))
      lines.push(
        rule(direction, `${ip} ${address} ${range} ${ip} ${address} != @${knownName(family)} goto unknown`),
      )
  }
  return lines
}

function addSet({ name, kind, family }: NamedSet): string {
  const address = family === 4 ? 'ipv4_addr' : 'ipv6_addr'
  const type = {
    addresses: address,
    endpoints: `${address} . inet_service`,
    pairs: `${address} . ${address}`,
    verdicts: `${address} : verdict`,
  }[kind]
  return `add ${kind === 'verdicts' ? 'map' : 'set'} ${table} ${name} { type ${type}; }`
}

function addElements({ name, elements, kind }: NamedSet, keys: readonly string[]): string[] {
  if (keys.length === 0) return []
  const texts = kind === 'verdicts' ? keys.map((key) => `${key} : goto ${elements.get(key) ?? ''}`) : keys
  return [`add element ${table} ${name} { ${texts.join(', ')} }`]
}

function addChains(chains: readonly Chain[]): string[] {
  const lines = chains.map(({ name }) => `add chain ${table} ${name}`)
  for (const { name, direction, lines: own, policies } of chains) {
    for (const line of own) lines.push(rule(name, `${matches(direction, line)}goto ${direction}-allow`))
    if (policies === undefined) continue
    for (const policy of policies) lines.push(rule(name, `jump ${policy}`))
    lines.push(rule(name, `goto ${direction}-refuse`))
  }
  return lines
}

function matches(direction: Direction, { addresses, ports, endpoints }: Line): string {
  const parts: string[] = []
  const { [direction]: address } = other
  if (addresses !== undefined) {
    const { family } = addresses
    if ('set' in addresses) parts.push(`${word(family)} ${address} @${addresses.set}`)
    else parts.push(blocksOf(family, address, addresses.blocks))
  }
  if (ports !== undefined) {
    const { protocol, numbers } = ports
    const texts = numbers.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`))
    parts.push(
      isEveryPort(numbers) ? `meta l4proto ${protocol}` : `${protocol} dport { ${texts.join(', ')} }`,
    )
  }
  if (endpoints !== undefined) {
    const { family, protocol, set } = endpoints
    parts.push(`${word(family)} ${address} . ${protocol} dport @${set}`)
  }
  return parts.map((part) => `${part} `).join('')
}

function blocksOf(family: Family, address: string, blocks: readonly Interval<bigint>[]): string {
  const [first] = addressUnion(blocks)
  if (first?.from === 0n && first.to === everyAddress[family]) return `meta nfproto ipv${family}`
  return `${word(family)} ${address} { ${blocks.map((block) => formatInterval(family, block)).join(', ')} }`
}

function rule(chain: string, text: string): string {
  return `add rule ${table} ${chain} ${text}`
}

function word(family: Family): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6'
}
