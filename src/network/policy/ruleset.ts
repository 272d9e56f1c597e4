import type { Interval } from './intervals.ts'
import type { Family, Protocol } from './facts.ts'

export type Direction = 'ingress' | 'egress'
export const directions = ['ingress', 'egress'] as const

/** What is compared with the address at the other end, and with the port. All of what is there has to hold. */
export interface Line {
  readonly addresses?: { readonly family: Family } & (
    | { readonly set: string }
    | { readonly blocks: readonly Interval<bigint>[] }
  )
  readonly ports?: { readonly protocol: Protocol; readonly numbers: readonly Interval<number>[] }
  /** The address and the port together are in a set. */
  readonly endpoints?: { readonly family: Family; readonly protocol: Protocol; readonly set: string }
}

/**
 * Of a policy: each line lets through what it matches, and what none does goes back. Of a pod: it goes through those of its
 * policies, and what none has let through is refused. Named by what is in it, so that none ever changes.
 */
export interface Chain {
  readonly name: string
  readonly direction: Direction
  readonly lines: readonly Line[]
  /** Names of chains. */
  readonly policies: readonly string[] | undefined
}

/**
 * addresses: of pods. endpoints: with a port. pairs: two addresses. verdicts: the chain of a pod, by its address.
 */
export type SetKind = 'addresses' | 'endpoints' | 'pairs' | 'verdicts'

export interface NamedSet {
  readonly name: string
  readonly kind: SetKind
  readonly family: Family
  /** With the name of a chain where it leads to one. */
  readonly elements: ReadonlyMap<string, string>
}

export interface Changes {
  readonly sets: { readonly added: readonly NamedSet[]; readonly removed: readonly NamedSet[] }
  readonly chains: { readonly added: readonly Chain[]; readonly removed: readonly Chain[] }
  readonly elements: readonly {
    readonly set: NamedSet
    readonly removed: readonly string[]
    readonly added: readonly string[]
  }[]
}

interface OpenSet extends NamedSet {
  readonly elements: Map<string, string>
}

/** Sets and chains as they shall be, and how that differs from what was taken last. */
export class Ruleset {
  readonly #sets = new Map<string, OpenSet>()
  readonly #chains = new Map<string, Chain>()
  readonly #addedSets = new Set<NamedSet>()
  readonly #removedSets = new Set<NamedSet>()
  readonly #addedChains = new Set<Chain>()
  readonly #removedChains = new Set<Chain>()
  /** What elements were when changes were taken last; undefined: they were not there. */
  readonly #former = new Map<OpenSet, Map<string, string | undefined>>()

  get sets(): ReadonlyMap<string, NamedSet> {
    return this.#sets
  }

  get chains(): ReadonlyMap<string, Chain> {
    return this.#chains
  }

  addSet(given: Omit<NamedSet, 'elements'>): void {
    const set: OpenSet = { ...given, elements: new Map() }
    this.#sets.set(set.name, set)
    this.#addedSets.add(set)
  }

  /** Not to be added again before the changes were taken. */
  removeSet(name: string): void {
    const set = this.#sets.get(name)
    if (set === undefined) return
    this.#sets.delete(name)
    this.#former.delete(set)
    if (!this.#addedSets.delete(set)) this.#removedSets.add(set)
  }

  addChain(chain: Chain): void {
    this.#chains.set(chain.name, chain)
    this.#addedChains.add(chain)
  }

  /** As `removeSet`. */
  removeChain(name: string): void {
    const chain = this.#chains.get(name)
    if (chain === undefined) return
    this.#chains.delete(name)
    if (!this.#addedChains.delete(chain)) this.#removedChains.add(chain)
  }

  /** undefined: it is not there. */
  setElement(name: string, element: string, value: string | undefined): void {
    const set = this.#sets.get(name)
    const current = set?.elements.get(element)
    if (set === undefined || current === value) return
    if (value === undefined) set.elements.delete(element)
    else set.elements.set(element, value)
    if (this.#addedSets.has(set)) return
    const former = this.#former.get(set) ?? new Map<string, string | undefined>()
    this.#former.set(set, former)
    if (!former.has(element)) former.set(element, current)
    else if (former.get(element) === value) former.delete(element)
  }

  /** undefined: there are none. */
  takeChanges(): Changes | undefined {
    const elements = [...this.#former].flatMap(([set, former]) => {
      const keys = [...former.keys()]
      const removed = keys.filter((key) => former.get(key) !== undefined)
      const added = keys.filter((key) => set.elements.has(key))
      return removed.length + added.length === 0 ? [] : [{ set, removed, added }]
    })
    const changes = {
      sets: { added: [...this.#addedSets], removed: [...this.#removedSets] },
      chains: { added: [...this.#addedChains], removed: [...this.#removedChains] },
      elements,
    }
    for (const kept of [this.#addedSets, this.#removedSets, this.#addedChains, this.#removedChains])
      kept.clear()
    this.#former.clear()
    const { sets, chains } = changes
    const count = [sets.added, sets.removed, chains.added, chains.removed, elements].flat().length
    return count === 0 ? undefined : changes
  }
}
