import { namespaceFacts, podFacts, policyFacts } from '../../../../src/network/policy/facts.ts'
import type { PolicyEngine } from '../../../../src/network/policy/engine.ts'
import { oneOf, randomNumbers } from '../../../random.ts'
import { keyOf, namespace, newEngine, pod, policy, type World, world } from './objects.ts'

export interface Chance {
  readonly random: (limit: number) => number
  readonly pick: <Value>(values: readonly Value[]) => Value
  /** As it is by now. */
  readonly now: World
  /** What has been told of each change, and not how all is. */
  readonly engine: PolicyEngine
  /** Something comes, is another, or goes. */
  readonly change: () => void
}

/** A cluster of two namespaces, with the same policies and pods for a seed in each run. */
export function chance(seed: number): Chance {
  const random = randomNumbers(seed)
  const pick = <Value>(values: readonly Value[]): Value => oneOf(random, values)
  const some = <Value>(most: number, make: () => Value): Value[] =>
    Array.from({ length: random(most + 1) }, make)
  const labels = () => Object.fromEntries(some(2, () => [pick(['k', 'l', 'toString']), pick(['1', '2'])]))
  const expression = () => {
    const operator = pick(['In', 'NotIn', 'Exists', 'DoesNotExist'])
    const values = operator.endsWith('In') && { values: [pick(['1', '2'])] }
    return { key: pick(['k', 'l']), operator, ...values }
  }
  const selector = () => ({ matchLabels: labels(), matchExpressions: some(1, expression) })
  const four = () => ({
    cidr: pick(['10.0.0.0/29', '0.0.0.0/0', '10.0.0.4/31', '255.0.0.0/8']),
    except: some(2, () => pick(['10.0.0.2/31', '10.0.0.5/32'])),
  })
  const six = () => ({ cidr: pick(['::/0', 'fd00::/64', 'ff00::/8']), except: some(1, () => 'fd00::4/126') })
  const peer = () =>
    pick([
      () => ({ podSelector: selector() }),
      () => ({ namespaceSelector: selector() }),
      () => ({ namespaceSelector: selector(), podSelector: selector() }),
      () => ({ ipBlock: four() }),
      () => ({ ipBlock: six() }),
    ])()
  const port = () => ({
    protocol: pick(['TCP', 'UDP', 'SCTP', undefined]),
    ...pick([
      ...[{}, { port: 80 }, { port: 80, endPort: 82 }, { port: 1, endPort: 65_535 }],
      ...[{ port: 81, endPort: 65_535 }, { port: 'web' }, { port: 'dns' }],
    ]),
  })
  const rule = (peers: string) => ({ [peers]: some(2, peer), ports: some(2, port) })
  const aNamespace = () => namespace(pick(['x', 'y']), labels())
  const aPolicy = () =>
    policy(pick(['x', 'y']), `p${random(4)}`, {
      podSelector: selector(),
      policyTypes: pick([undefined, ['Ingress'], ['Egress'], ['Ingress', 'Egress']]),
      ingress: some(2, () => rule('from')),
      egress: some(2, () => rule('to')),
    })
  const aPod = () => {
    const index = random(8) + 1
    return pod(index % 2 === 0 ? 'x' : 'y', `pod${index}`, {
      labels: labels(),
      ips: pick([[`10.0.0.${index}`, `fd00::${index}`], [`10.0.0.${index}`], []]),
      node: index % 3 === 0 ? 'there' : 'here',
      phase: pick(['Running', 'Running', 'Running', 'Pending', 'Failed']),
      ports: some(2, () => ({
        name: pick(['web', 'dns']),
        containerPort: pick([80, 81, 53]),
        protocol: pick(['TCP', 'UDP', undefined]),
      })),
      hostNetwork: random(9) === 0,
    })
  }
  const now = world({ namespaces: [namespace('x', labels()), namespace('y', labels())] })
  const engine = newEngine()
  for (const object of now.namespaces.values()) engine.setNamespace(...namespaceFacts(object)!)
  const change = () => {
    const kind = random(5)
    const isGone = random(4) === 0
    if (kind === 0) {
      const changed = aNamespace()
      now.namespaces.set(keyOf(changed), changed)
      return engine.setNamespace(...namespaceFacts(changed)!)
    }
    const changed = kind === 1 ? aPolicy() : aPod()
    const key = keyOf(changed)
    const objects = kind === 1 ? now.policies : now.pods
    if (isGone) objects.delete(key)
    else objects.set(key, changed)
    if (kind === 1) engine.setPolicy(key, isGone ? undefined : policyFacts(changed)![1])
    else engine.setPod(key, isGone ? undefined : podFacts(changed)![1])
  }
  return { random, pick, now, engine, change }
}
