/*
 * From policies, namespaces and pods to the rules of this node: pure, and piece by piece, since thousands of pods come and go.
 *
 *    map by address ──▶ chain of a pod ──▶ chain of each policy that selects it ──▶ sets of the addresses of its peers
 *
 * Each is there as long as what stands before it needs it. A pod that changes is looked at against the peers that its labels
 * may fit, and changes elements of their sets; a policy that changes has the pods of its namespace that run here looked at again.
 * Nothing that users have written becomes a part of a name or a rule: names are hashes, and the rest are numbers.
 */
import { familyOf } from '../../base/address.ts'
import { type ChainPlan, planChain, portsNamedBy } from './chain-plan.ts'
import type { Family, PodFacts, PolicyFacts } from './facts.ts'
import { index } from './index-sets.ts'
import { hashOf, knownName, mapName, selfName } from './names.ts'
import { type Group, groupsProblem, PeerGroups } from './peer-groups.ts'
import { type Chain, type Direction, directions, Ruleset } from './ruleset.ts'
import type { Labels } from './selector.ts'

/** Whose an address of this node is, as the container runtime says. */
export interface RuntimePod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
}

export interface EngineOptions {
  readonly nodeName: string
  readonly families: readonly Family[]
}

interface ChainUse {
  readonly chain: Chain
  uses: number
  readonly groups: readonly Group[]
  readonly policies: readonly ChainUse[]
}

/** What a pod of this node has in the maps. */
interface LocalPod {
  readonly addresses: readonly string[]
  readonly chains: Readonly<Record<Direction, ChainUse | undefined>>
}

/** Known until then, or gone (undefined). */
type Inbox<Value> = Map<string, Value | undefined>

export class PolicyEngine {
  readonly rules = new Ruleset()
  readonly #nodeName: string
  readonly #families: readonly Family[]
  readonly #inbox = {
    policies: new Map() as Inbox<PolicyFacts>,
    namespaces: new Map() as Inbox<Labels>,
    pods: new Map() as Inbox<PodFacts>,
  }
  #nextRuntime: ReadonlyMap<string, RuntimePod> | undefined
  #runtime: ReadonlyMap<string, RuntimePod> = new Map()
  readonly #runtimeByPod = new Map<string, string[]>()
  readonly #policies = new Map<string, PolicyFacts>()
  readonly #policiesOf = new Map<string, Set<string>>()
  readonly #namespaces = new Map<string, Labels>()
  readonly #pods = new Map<string, PodFacts>()
  readonly #podsOf = new Map<string, Set<string>>()
  readonly #localOf = new Map<string, Set<string>>()
  readonly #groups: PeerGroups
  readonly #chains = new Map<string, ChainUse>()
  readonly #plans = new WeakMap<PolicyFacts, Map<string, ChainPlan>>()
  readonly #problems = new Map<string, string>()
  readonly #local = new Map<string, LocalPod>()
  /** Pods of this node by their addresses: for a moment two may have the same. */
  readonly #owners = new Map<string, Set<string>>()
  readonly #dirtyPods = new Set<string>()
  readonly #dirtyLocal = new Set<string>()
  readonly #dirtyAddresses = new Set<string>()

  constructor({ nodeName, families }: EngineOptions) {
    this.#nodeName = nodeName
    this.#families = families
    this.#groups = new PeerGroups(
      {
        ...{ namespaces: this.#namespaces, pods: this.#pods, podsOf: this.#podsOf },
        addressesOf: (key, facts) => this.#addressesOf(key, facts),
      },
      { rules: this.rules, families },
    )
    for (const family of families) {
      for (const direction of directions)
        this.rules.addSet({ name: mapName(direction, family), kind: 'verdicts', family })
      this.rules.addSet({ name: knownName(family), kind: 'addresses', family })
      this.rules.addSet({ name: selfName(family), kind: 'pairs', family })
    }
  }

  /** Those of a kind; which of them are gone is found out. */
  setAll(all: {
    policies?: ReadonlyMap<string, PolicyFacts>
    namespaces?: ReadonlyMap<string, Labels>
    pods?: ReadonlyMap<string, PodFacts>
  }): void {
    const take = <Value>(
      inbox: Inbox<Value>,
      known: ReadonlyMap<string, Value>,
      given: ReadonlyMap<string, Value>,
    ) => {
      inbox.clear()
      for (const key of known.keys()) if (!given.has(key)) inbox.set(key, undefined)
      for (const [key, value] of given) inbox.set(key, value)
    }
    if (all.policies) take(this.#inbox.policies, this.#policies, all.policies)
    if (all.namespaces) take(this.#inbox.namespaces, this.#namespaces, all.namespaces)
    if (all.pods) take(this.#inbox.pods, this.#pods, all.pods)
  }

  setPolicy(key: string, facts: PolicyFacts | undefined): void {
    this.#inbox.policies.set(key, facts)
  }

  setNamespace(name: string, labels: Labels | undefined): void {
    this.#inbox.namespaces.set(name, labels)
  }

  setPod(key: string, facts: PodFacts | undefined): void {
    this.#inbox.pods.set(key, facts)
  }

  setRuntime(runtime: ReadonlyMap<string, RuntimePod>): void {
    this.#nextRuntime = runtime
  }

  get policies(): ReadonlyMap<string, PolicyFacts> {
    return this.#policies
  }

  /** Pods of this node that some policy selects. */
  get selectedPods(): number {
    let count = 0
    for (const { chains } of this.#local.values()) if (chains.ingress ?? chains.egress) count++
    return count
  }

  /** What of policies cannot be enforced here, by their keys. */
  *problems(): Generator<readonly [key: string, reason: string]> {
    for (const [key, { problems }] of this.#policies) for (const reason of problems) yield [key, reason]
    yield* this.#problems
  }

  /** Whether the address has no pod that is known, although it is one of this node. */
  isStranger(address: string): boolean {
    return !this.#owners.has(address)
  }

  /** Takes what has come into the rules; between its steps others may have their turn. */
  *work(): Generator<void> {
    do {
      yield* this.#takeRuntime()
      yield* this.#takeNamespaces()
      yield* this.#takePods()
      yield* this.#takePolicies()
      yield* this.#takeLocal()
    } while (this.#hasMail())
    this.#collect()
  }

  #hasMail(): boolean {
    const { policies, namespaces, pods } = this.#inbox
    return this.#nextRuntime !== undefined || policies.size + namespaces.size + pods.size > 0
  }

  *#takeRuntime(): Generator<void> {
    const next = this.#nextRuntime
    if (next === undefined) return
    this.#nextRuntime = undefined
    const former = this.#runtime
    this.#runtime = next
    const keysOf = (address: string) =>
      [former.get(address), next.get(address)].flatMap((pod) => (pod ? [`${pod.namespace}/${pod.name}`] : []))
    this.#runtimeByPod.clear()
    for (const [address, { namespace, name }] of next) {
      const key = `${namespace}/${name}`
      this.#runtimeByPod.set(key, [...(this.#runtimeByPod.get(key) ?? []), address])
    }
    for (const address of new Set([...former.keys(), ...next.keys()])) {
      if (former.get(address)?.uid === next.get(address)?.uid) continue
      for (const key of [...keysOf(address), ...(this.#owners.get(address) ?? [])]) this.#dirtyPods.add(key)
    }
    yield
  }

  *#takeNamespaces(): Generator<void> {
    for (const [name, labels] of taken(this.#inbox.namespaces)) {
      if (JSON.stringify(this.#namespaces.get(name)) === JSON.stringify(labels)) continue
      if (labels === undefined) this.#namespaces.delete(name)
      else this.#namespaces.set(name, labels)
      for (const key of this.#podsOf.get(name) ?? []) this.#dirtyPods.add(key)
      yield
    }
  }

  *#takePods(): Generator<void> {
    for (const [key, facts] of taken(this.#inbox.pods)) {
      const former = this.#pods.get(key)
      if (former === facts || JSON.stringify(former) === JSON.stringify(facts)) continue
      const { namespace, nodeName } = (facts ?? former)!
      if (facts === undefined) this.#pods.delete(key)
      else this.#pods.set(key, facts)
      index(this.#podsOf, namespace, key, facts !== undefined)
      index(this.#localOf, namespace, key, facts !== undefined && nodeName === this.#nodeName)
      this.#dirtyPods.add(key)
    }
    for (const key of this.#dirtyPods) {
      this.#dirtyPods.delete(key)
      this.#groups.update(key)
      this.#updateOwner(key)
      yield
    }
  }

  *#takePolicies(): Generator<void> {
    for (const [key, facts] of taken(this.#inbox.policies)) {
      const { namespace } = facts ?? this.#policies.get(key) ?? { namespace: '' }
      if (facts === undefined) this.#policies.delete(key)
      else this.#policies.set(key, facts)
      this.#problems.delete(key)
      index(this.#policiesOf, namespace, key, facts !== undefined)
      for (const pod of this.#localOf.get(namespace) ?? []) this.#dirtyLocal.add(pod)
      yield
    }
  }

  *#takeLocal(): Generator<void> {
    for (const key of this.#dirtyLocal) {
      this.#dirtyLocal.delete(key)
      yield* this.#updateLocal(key)
      yield
    }
    for (const address of this.#dirtyAddresses) this.#writeAddress(address)
    this.#dirtyAddresses.clear()
  }

  /** What is in use by nobody any more. */
  #collect(): void {
    for (const [name, use] of this.#chains) {
      if (use.uses > 0 || use.chain.policies === undefined) continue
      this.#dropChain(name, use)
    }
    for (const [name, use] of this.#chains) if (use.uses === 0) this.#dropChain(name, use)
    this.#groups.collect()
  }

  #dropChain(name: string, { groups, policies }: ChainUse): void {
    this.#chains.delete(name)
    this.rules.removeChain(name)
    for (const group of groups) group.uses--
    for (const policy of policies) policy.uses--
  }

  /** The addresses that the pod has: the runtime of this node knows them first, and knows whose they are. */
  #addressesOf(key: string, facts: PodFacts): readonly string[] {
    if (facts.nodeName !== this.#nodeName) return facts.addresses
    const isOwn = (address: string) => {
      const pod = this.#runtime.get(address)
      return pod === undefined || (`${pod.namespace}/${pod.name}` === key && facts.uids.includes(pod.uid))
    }
    const early = facts.isOver ? [] : (this.#runtimeByPod.get(key) ?? [])
    return [...new Set([...facts.addresses, ...early])].filter(isOwn)
  }

  #updateOwner(key: string): void {
    const facts = this.#pods.get(key)
    const isHere = facts?.nodeName === this.#nodeName
    const next = isHere
      ? this.#addressesOf(key, facts).filter((text) => this.#families.includes(familyOf(text)))
      : []
    for (const address of this.#local.get(key)?.addresses ?? [])
      if (!next.includes(address)) this.#own(address, key, false)
    for (const address of next) this.#own(address, key, true)
    this.#dirtyLocal.add(key)
  }

  #own(address: string, key: string, isOwner: boolean): void {
    index(this.#owners, address, key, isOwner)
    this.#dirtyAddresses.add(address)
  }

  *#updateLocal(key: string): Generator<void> {
    const facts = this.#pods.get(key)
    const former = this.#local.get(key)
    const addresses = facts === undefined ? [] : this.#ownedBy(key, facts)
    if (facts === undefined || addresses.length === 0) {
      this.#local.delete(key)
    } else {
      const chains = {
        ingress: yield* this.#podChain('ingress', facts),
        egress: yield* this.#podChain('egress', facts),
      }
      for (const use of Object.values(chains)) if (use) use.uses++
      this.#local.set(key, { addresses, chains })
      for (const address of addresses) this.#dirtyAddresses.add(address)
    }
    for (const use of Object.values(former?.chains ?? {})) if (use) use.uses--
  }

  #ownedBy(key: string, facts: PodFacts): readonly string[] {
    return this.#addressesOf(key, facts).filter((address) => this.#owners.get(address)?.has(key))
  }

  /** undefined: no policy selects it in that direction. */
  *#podChain(direction: Direction, pod: PodFacts): Generator<void, ChainUse | undefined> {
    const plans: [key: string, plan: ChainPlan][] = []
    let isSelected = false
    for (const key of this.#policiesOf.get(pod.namespace) ?? []) {
      const policy = this.#policies.get(key)
      const rules = policy?.[direction]
      if (policy === undefined || rules === undefined || !policy.selector.matches(pod.labels)) continue
      isSelected = true
      const plan = this.#planOf(policy, direction, pod)
      if (plan.problem !== undefined) this.#problems.set(key, plan.problem)
      if (plan.lines.length > 0) plans.push([key, plan])
    }
    if (!isSelected) return undefined
    const uses = new Set<ChainUse>()
    for (const [key, plan] of plans) {
      uses.add(yield* this.#chainOf(plan, []))
      if (plan.groups.length > 0 && this.#groups.isFull) this.#problems.set(key, groupsProblem)
    }
    const policies = [...uses].map(({ chain }) => chain.name).toSorted()
    const name = `${direction}-pod-${hashOf(policies)}`
    return yield* this.#chainOf({ name, direction, lines: [], policies, groups: [] }, [...uses])
  }

  *#chainOf(plan: Omit<ChainPlan, 'problem'>, policies: readonly ChainUse[]): Generator<void, ChainUse> {
    const known = this.#chains.get(plan.name)
    if (known !== undefined) return known
    const groups: Group[] = []
    for (const wanted of plan.groups) {
      groups.push(this.#groups.get(wanted))
      yield
    }
    const { name, direction, lines } = plan
    const chain: Chain = { name, direction, lines, policies: plan.policies }
    const use: ChainUse = { chain, uses: 0, groups, policies }
    for (const needed of [...groups, ...policies]) needed.uses++
    this.#chains.set(name, use)
    this.rules.addChain(chain)
    return use
  }

  #planOf(policy: PolicyFacts, direction: Direction, pod: PodFacts): ChainPlan {
    const named = portsNamedBy(policy, direction, pod)
    const key = `${direction} ${JSON.stringify(named)}`
    const plans = this.#plans.get(policy) ?? new Map<string, ChainPlan>()
    this.#plans.set(policy, plans)
    const plan = plans.get(key) ?? planChain(policy, direction, { named, families: this.#families })
    plans.set(key, plan)
    return plan
  }

  /** Of two pods with one address the runtime's has it; else the younger one, as the other is about to go. */
  #writeAddress(address: string): void {
    const owners = [...(this.#owners.get(address) ?? [])].filter((key) => this.#local.has(key))
    const age = (key: string) => this.#pods.get(key)?.createdAt ?? ''
    const [owner] = owners.toSorted((a, b) => (age(a) > age(b) ? -1 : age(a) < age(b) ? 1 : a < b ? -1 : 1))
    const chains = owner === undefined ? undefined : this.#local.get(owner)?.chains
    const family = familyOf(address)
    for (const direction of directions)
      this.rules.setElement(mapName(direction, family), address, chains?.[direction]?.chain.name)
    const isSelected = (chains?.ingress ?? chains?.egress) !== undefined
    this.rules.setElement(selfName(family), `${address} . ${address}`, isSelected ? '' : undefined)
    this.rules.setElement(knownName(family), address, owner === undefined ? undefined : '')
  }
}

/** One after the other; more may come meanwhile. */
function* taken<Value>(inbox: Inbox<Value>): Generator<readonly [string, Value | undefined]> {
  for (const [key, value] of inbox) {
    inbox.delete(key)
    yield [key, value]
  }
}
