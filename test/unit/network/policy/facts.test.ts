import { expect, test } from 'vitest'
import { PolicyEngine } from '../../../../src/network/policy/engine.ts'
import { namespaceFacts, podFacts, policyFacts } from '../../../../src/network/policy/facts.ts'
import { renderAll } from '../../../../src/network/policy/nft.ts'
import type { WatchedObject } from '../../../../src/api/watch.ts'
import { fuzz, fuzzCases, oneOf, type Random } from '../../../random.ts'
import { pod, settle } from './objects.ts'

const keys = [
  ...['metadata', 'name', 'namespace', 'labels', 'podSelector', 'namespaceSelector', 'matchLabels'],
  ...['matchExpressions', 'key', 'operator', 'values', 'from', 'to', 'ports', 'port', 'endPort', 'protocol'],
  ...['ipBlock', 'cidr', 'except', 'ip', 'containerPort', '__proto__', 'constructor'],
]
const scalars = [
  ...[null, 0, 1, 80, -1, 1.5, 1e9, true, '', 'x', 'In', 'Exists', 'TCP', 'SCTP', 'Ingress', 'Egress'],
  ...['10.0.0.1', '10.0.0.0/8', '::/0', 'fd00::1', '999.1.1.1/99', 'web', '"; flush ruleset #', '__proto__'],
]

/** Anything that JSON can say. */
function anything(random: Random, depth: number): unknown {
  const kind = depth === 0 ? 0 : random(3)
  if (kind === 0) return oneOf(random, scalars)
  if (kind === 1) return Array.from({ length: random(4) }, () => anything(random, depth - 1))
  const entries = Array.from({ length: random(8) }, () => [oneOf(random, keys), anything(random, depth - 1)])
  return Object.fromEntries(entries)
}

const plan = fuzzCases(400)

test(
  'whatever an object says, nothing of it reaches nft but numbers, and nothing fails',
  () =>
    fuzz(plan, async (random) => {
      const some = (depth: number) => anything(random, depth)
      const metadata = { name: 'n', namespace: 'x', labels: some(2), annotations: some(2), uid: some(1) }
      const object = (spec: object) =>
        JSON.parse(
          JSON.stringify({
            metadata: random(5) === 0 ? some(3) : metadata,
            spec: random(6) === 0 ? some(4) : spec,
            status: random(6) === 0 ? some(3) : { podIPs: some(3), podIP: some(0), phase: some(0) },
          }),
        ) as WatchedObject
      const engine = new PolicyEngine({ nodeName: 'here', families: [4, 6] })
      const rule = {
        from: [some(4), { ipBlock: some(2) }, { podSelector: some(3) }],
        ports: [some(2), some(2)],
      }
      const policy = policyFacts(
        object({ podSelector: some(3), ingress: [rule], egress: some(5), policyTypes: some(1) }),
      )
      const own = podFacts(object({ nodeName: 'here', containers: some(4), hostNetwork: some(0) }))
      const namespace = namespaceFacts(object({}))
      if (namespace !== undefined) engine.setNamespace(...namespace)
      if (own !== undefined) engine.setPod(...own)
      engine.setPod(...podFacts(pod('x', 'other', { ips: ['10.0.0.9'] }))!)
      if (policy !== undefined) engine.setPolicy(...policy)
      settle(engine)
      const text = renderAll(engine.rules, { families: [4, 6], ranges: [] })
      expect(text).toMatch(/^[a-z0-9 {},;:./@="!>_<\n-]*$/)
      expect(text).not.toContain('flush')
    }),
  plan.timeoutMs,
)

test('a selector without expressions may have null in their place', () => {
  const selector = { matchLabels: { a: 'b' }, matchExpressions: null }
  const facts = policyFacts({ metadata: { name: 'n', namespace: 'x' }, spec: { podSelector: selector } })![1]
  expect([facts.selector.matches({ a: 'b' }), facts.selector.matches({}), facts.problems]).toEqual([
    true,
    false,
    [],
  ])
})
