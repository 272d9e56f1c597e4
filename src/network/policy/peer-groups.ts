import { familyOf } from '../../base/address.ts'
import type { GroupPlan } from './chain-plan.ts'
import { isNamed } from './chain-plan.ts'
import type { Family, PodFacts } from './facts.ts'
import { index } from './index-sets.ts'
import { setName } from './names.ts'
import type { Ruleset } from './ruleset.ts'
import { type Labels, labelText } from './selector.ts'

/** Of all sets of peers together: beyond, a policy's further peers reach nothing, and it is told. */
const groupsLimit = 8_192
const elementsLimit = 1_000_000
export const groupsProblem = `all policies together have too many peers (more than ${groupsLimit} different ones, or ${elementsLimit} addresses); some reach nothing`

/** Peers that a policy names, and the sets of their addresses. */
export interface Group extends GroupPlan {
  uses: number
  readonly members: Map<string, readonly string[]>
  readonly counts: Map<string, number>
}

/** What is known of the cluster. */
export interface ClusterView {
  readonly namespaces: ReadonlyMap<string, Labels>
  readonly pods: ReadonlyMap<string, PodFacts>
  readonly podsOf: ReadonlyMap<string, ReadonlySet<string>>
  readonly addressesOf: (key: string, facts: PodFacts) => readonly string[]
}

/** All that are in use. A pod that changes is looked at against those alone that its labels may fit. */
export class PeerGroups {
  readonly #view: ClusterView
  readonly #rules: Ruleset
  readonly #families: readonly Family[]
  readonly #groups = new Map<string, Group>()
  /** By where pods are looked for and the label that they want. */
  readonly #index = new Map<string, Set<Group>>()
  readonly #ofPod = new Map<string, Set<Group>>()
  #elements = 0

  constructor(view: ClusterView, { rules, families }: { rules: Ruleset; families: readonly Family[] }) {
    this.#view = view
    this.#rules = rules
    this.#families = families
  }

  get isFull(): boolean {
    return this.#groups.size > groupsLimit || this.#elements > elementsLimit
  }

  /** What is in use by nobody any more goes. */
  collect(): void {
    for (const [name, group] of this.#groups) if (group.uses === 0) this.#drop(name, group)
  }

  /** Of which the pod is one, now that it, or its namespace, has changed. */
  update(key: string): void {
    const facts = this.#view.pods.get(key)
    const former = this.#ofPod.get(key) ?? new Set<Group>()
    const fitting = new Set<Group>()
    if (facts !== undefined)
      for (const group of this.#candidates(facts)) if (this.#fits(group, facts)) fitting.add(group)
    for (const group of former) if (!fitting.has(group)) this.#setMember(group, key, undefined)
    for (const group of fitting) this.#setMember(group, key, facts)
  }

  *#candidates({ namespace, labels }: PodFacts): Generator<Group> {
    const texts = Object.entries(labels).map(([label, value]) => labelText(label, value))
    for (const scope of [namespace, undefined])
      for (const wanted of [undefined, ...texts]) yield* this.#index.get(indexKey(scope, wanted)) ?? []
  }

  #fits(group: Group, { namespace, labels }: PodFacts): boolean {
    if (group.namespace === undefined) {
      // One that is not known yet is none of those without a label.
      const labelsOfNamespace = this.#view.namespaces.get(namespace)
      if (labelsOfNamespace === undefined || !group.namespaces.matches(labelsOfNamespace)) return false
    } else if (group.namespace !== namespace) return false
    return group.pods.matches(labels)
  }

  #setMember(group: Group, key: string, facts: PodFacts | undefined): void {
    const next = facts === undefined ? [] : elementsOf(group, facts, this.#view.addressesOf(key, facts))
    const former = group.members.get(key) ?? []
    if (next.length > 0) group.members.set(key, next)
    else group.members.delete(key)
    index(this.#ofPod, key, group, next.length > 0)
    for (const element of next) if (!former.includes(element)) this.#count(group, element, 1)
    for (const element of former) if (!next.includes(element)) this.#count(group, element, -1)
  }

  #count(group: Group, element: string, by: 1 | -1): void {
    const count = (group.counts.get(element) ?? 0) + by
    const isFirst = count === 1 && by === 1
    if (count === 0) group.counts.delete(element)
    else group.counts.set(element, count)
    if (!isFirst && count !== 0) return
    this.#elements += by
    this.#rules.setElement(setName(group.name, familyOf(element)), element, isFirst ? '' : undefined)
  }

  /** With all its peers. */
  get(plan: GroupPlan): Group {
    const known = this.#groups.get(plan.name)
    if (known !== undefined) return known
    const group: Group = { ...plan, uses: 0, members: new Map(), counts: new Map() }
    this.#groups.set(group.name, group)
    for (const family of this.#families)
      this.#rules.addSet({
        name: setName(group.name, family),
        kind: group.port ? 'endpoints' : 'addresses',
        family,
      })
    if (this.isFull) return group
    index(this.#index, indexKey(group.namespace, group.pods.wanted), group, true)
    const keys =
      group.namespace === undefined ? this.#view.pods.keys() : (this.#view.podsOf.get(group.namespace) ?? [])
    for (const key of keys) {
      const facts = this.#view.pods.get(key)
      if (facts !== undefined && this.#fits(group, facts)) this.#setMember(group, key, facts)
    }
    return group
  }

  #drop(name: string, group: Group): void {
    this.#groups.delete(name)
    index(this.#index, indexKey(group.namespace, group.pods.wanted), group, false)
    for (const key of group.members.keys()) index(this.#ofPod, key, group, false)
    this.#elements -= group.counts.size
    for (const family of this.#families) this.#rules.removeSet(setName(name, family))
  }
}

function indexKey(namespace: string | undefined, wanted: string | undefined): string {
  return `${namespace ?? '*'} ${wanted ?? ''}`
}

function elementsOf(
  { port }: GroupPlan,
  { ports }: PodFacts,
  addresses: readonly string[],
): readonly string[] {
  if (port === undefined) return addresses
  const numbers = ports.filter((own) => isNamed(own, port)).map((own) => own.port)
  return addresses.flatMap((address) => [...new Set(numbers)].map((number) => `${address} . ${number}`))
}
