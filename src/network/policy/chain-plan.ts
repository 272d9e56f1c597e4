import {
  type Family,
  type NamedPort,
  type PolicyFacts,
  type PolicyRule,
  type PodFacts,
  type Protocol,
  protocols,
} from './facts.ts'
import { type Interval, portUnion } from './intervals.ts'
import { hashOf, setName } from './names.ts'
import type { Chain, Direction, Line } from './ruleset.ts'
import { everything, type Selector } from './selector.ts'

/** Of one policy in one direction: each peer once for each protocol. */
const linesLimit = 4_000

/** All pods with the same peers have one; of those of one policy alone only what it says is asked. */
export interface GroupPlan {
  readonly name: string
  /** undefined: those that `namespaces` matches. */
  readonly namespace: string | undefined
  readonly namespaces: Selector
  readonly pods: Selector
  /** Whose endpoints they are, and not whose addresses. */
  readonly port: Omit<NamedPort, 'port'> | undefined
}

/** The chain of a policy, and the sets that it asks. */
export interface ChainPlan extends Chain {
  readonly groups: readonly GroupPlan[]
  readonly problem: string | undefined
}

/** Names of ports are those of the pod that is reached: of this one, where it is this one that is. */
export function portsNamedBy(policy: PolicyFacts, direction: Direction, pod: PodFacts): NamedPort[] {
  if (direction === 'egress') return []
  const names = (policy[direction] ?? []).flatMap(({ ports }) => ports?.names ?? [])
  return pod.ports.filter((port) => names.some((name) => isNamed(port, name)))
}

/** named: as `portsNamedBy` has them. */
export function planChain(
  policy: PolicyFacts,
  direction: Direction,
  { named, families }: { named: readonly NamedPort[]; families: readonly Family[] },
): ChainPlan {
  const writer = new LineWriter(policy.namespace, families)
  for (const rule of policy[direction] ?? []) writer.add(rule, direction === 'egress' ? undefined : named)
  return {
    ...{ name: `${direction}-${hashOf(writer.lines.map(lineText))}`, direction, lines: writer.lines },
    ...{ policies: undefined, groups: [...writer.groups.values()] },
    problem: writer.isCutOff
      ? `it has more than ${linesLimit} combinations of peers and ports; what those beyond would allow is refused`
      : undefined,
  }
}

/** What a policy says, as lines. */
class LineWriter {
  readonly lines: Line[] = []
  readonly groups = new Map<string, GroupPlan>()
  isCutOff = false
  readonly #namespace: string
  readonly #families: readonly Family[]

  constructor(namespace: string, families: readonly Family[]) {
    this.#namespace = namespace
    this.#families = families
  }

  /** named: the ports that the pod has; undefined: the pods that are reached have their own. */
  add({ peers, ports }: PolicyRule, named: readonly NamedPort[] | undefined): void {
    for (const other of this.#numbered(ports, named)) {
      if (peers === undefined) this.#push(other)
      for (const one of peers?.pods ?? []) {
        const { name } = this.#group({ ...one, port: undefined })
        for (const family of this.#families)
          this.#push({ addresses: { family, set: setName(name, family) }, ...other })
      }
      for (const family of this.#families) {
        const blocks = peers?.blocks[family] ?? []
        if (blocks.length > 0) this.#push({ addresses: { family, blocks }, ...other })
      }
    }
    if (named !== undefined) return
    for (const port of ports?.names ?? []) {
      const anybody = { namespaces: everything, pods: everything, port }
      if (peers === undefined) this.#endpoints(anybody)
      for (const one of peers?.pods ?? []) this.#endpoints({ ...one, port })
      for (const family of this.#families) {
        const blocks = peers?.blocks[family] ?? []
        if (blocks.length > 0) this.#endpoints(anybody, { addresses: { family, blocks } })
      }
    }
  }

  /** What is asked of ports that are numbers, one protocol after the other. */
  #numbered(ports: PolicyRule['ports'], named: readonly NamedPort[] | undefined): Pick<Line, 'ports'>[] {
    if (ports === undefined) return [{}]
    return protocols.flatMap((protocol) => {
      const own = (named ?? []).filter(
        (port) => port.protocol === protocol && ports.names.some((name) => isNamed(port, name)),
      )
      const numbers = portUnion([
        ...(ports.numbers[protocol] ?? []),
        ...own.map(({ port }): Interval<number> => ({ from: port, to: port })),
      ])
      return numbers.length === 0 ? [] : [{ ports: { protocol, numbers } }]
    })
  }

  #endpoints(
    plan: Omit<GroupPlan, 'name' | 'namespace' | 'namespaces' | 'port'> & GroupWish,
    other: Line = {},
  ): void {
    const { name } = this.#group(plan)
    const { protocol } = plan.port!
    for (const family of other.addresses === undefined ? this.#families : [other.addresses.family])
      this.#push({ ...other, endpoints: { family, protocol, set: setName(name, family) } })
  }

  #group({ namespaces, pods, port }: { pods: Selector } & GroupWish): GroupPlan {
    const namespace = namespaces === undefined ? this.#namespace : undefined
    const scope = namespaces ?? everything
    const name = `peers-${hashOf([namespace ?? null, scope.key, pods.key, port ?? null])}`
    const plan = { name, namespace, namespaces: scope, pods, port }
    this.groups.set(name, plan)
    return plan
  }

  #push(line: Line): void {
    if (this.lines.length < linesLimit) this.lines.push(line)
    else this.isCutOff = true
  }
}

interface GroupWish {
  readonly namespaces: Selector | undefined
  readonly port: Omit<NamedPort, 'port'> | undefined
}

export function isNamed(port: NamedPort, { name, protocol }: { name: string; protocol: Protocol }): boolean {
  return port.name === name && port.protocol === protocol
}

function lineText({ addresses, ports, endpoints }: Line): unknown {
  if (addresses === undefined || !('blocks' in addresses)) return { addresses, ports, endpoints }
  const blocks = addresses.blocks.map(({ from, to }) => `${from}-${to}`)
  return { addresses: { family: addresses.family, blocks }, ports, endpoints }
}
