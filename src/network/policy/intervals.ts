import { type Address, formatAddress, type Range } from '../../base/address.ts'

/** Both ends belong to it. Of ports and of addresses of one family. */
export interface Interval<Value extends number | bigint> {
  readonly from: Value
  readonly to: Value
}

/** In order, and none touches another. */
export function union<Value extends number | bigint>(
  given: readonly Interval<Value>[],
  next: (value: Value) => Value,
): Interval<Value>[] {
  const merged: Interval<Value>[] = []
  for (const one of given.toSorted((a, b) => (a.from < b.from ? -1 : a.from > b.from ? 1 : 0))) {
    const last = merged.at(-1)
    if (last === undefined || one.from > next(last.to)) merged.push(one)
    else if (one.to > last.to) merged[merged.length - 1] = { from: last.from, to: one.to }
  }
  return merged
}

export function portUnion(given: readonly Interval<number>[]): Interval<number>[] {
  return union(given, (port) => port + 1)
}

export function addressUnion(given: readonly Interval<bigint>[]): Interval<bigint>[] {
  return union(given, (bits) => bits + 1n)
}

/** The addresses of a block that are in none of `except`, all of one family. */
export function blockWithout(block: Range, except: readonly Range[]): Interval<bigint>[] {
  const whole = intervalOf(block)
  const rest: Interval<bigint>[] = []
  let { from } = whole
  for (const hole of addressUnion(except.map(intervalOf))) {
    if (hole.to < from || hole.from > whole.to) continue
    if (hole.from > from) rest.push({ from, to: hole.from - 1n })
    from = hole.to + 1n
  }
  return from > whole.to ? rest : [...rest, { from, to: whole.to }]
}

export function isWithin(intervals: readonly Interval<bigint>[], bits: bigint): boolean {
  return intervals.some(({ from, to }) => from <= bits && bits <= to)
}

/** "10.0.0.0-10.0.0.255" */
export function formatInterval(family: Address['family'], { from, to }: Interval<bigint>): string {
  const first = formatAddress({ family, bits: from })
  return from === to ? first : `${first}-${formatAddress({ family, bits: to })}`
}

function intervalOf({ first, prefix }: Range): Interval<bigint> {
  const hostBits = BigInt((first.family === 4 ? 32 : 128) - prefix)
  return { from: first.bits, to: first.bits | ((1n << hostBits) - 1n) }
}
