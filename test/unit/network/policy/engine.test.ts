import { describe, expect, test } from 'vitest'
import { namespaceFacts, podFacts } from '../../../../src/network/policy/facts.ts'
import { renderAll, renderChanges } from '../../../../src/network/policy/nft.ts'
import { chance } from './chance.ts'
import { engineOf, namespace, pod, policy, settle, type World, world } from './objects.ts'
import { isAllowed, type Packet, passes, textOf } from './traffic.ts'

const web = [{ name: 'web', containerPort: 80 }]

/** x/a and x/b here, y/c elsewhere, y/d here, x/host with its node's address. */
function cluster(...policies: object[]): World {
  return world({
    policies: policies.map((spec, index) => policy('x', `p${index}`, spec as Record<string, unknown>)),
    namespaces: [namespace('x', { ns: 'x' }), namespace('y', { ns: 'y' })],
    pods: [
      pod('x', 'a', { labels: { pod: 'a' }, ips: ['10.244.0.1', 'fd00::1'], ports: web }),
      pod('x', 'b', {
        labels: { pod: 'b' },
        ips: ['10.244.0.2', 'fd00::2'],
        ports: [{ name: 'web', containerPort: 81 }],
      }),
      pod('y', 'c', { labels: { pod: 'c' }, ips: ['10.244.1.1', 'fd00::1:1'], node: 'there', ports: web }),
      pod('y', 'd', {
        labels: { pod: 'd' },
        ips: ['10.244.0.4', 'fd00::4'],
        ports: [{ name: 'web', containerPort: 80, protocol: 'UDP' }],
      }),
      pod('x', 'host', { labels: { pod: 'b' }, ips: ['192.0.2.1'], hostNetwork: true }),
    ],
  })
}

const addresses: Record<string, string> = {
  a: '10.244.0.1',
  b: '10.244.0.2',
  c: '10.244.1.1',
  d: '10.244.0.4',
  host: '192.0.2.1',
  world: '203.0.113.5',
  a6: 'fd00::1',
  b6: 'fd00::2',
  c6: 'fd00::1:1',
}

/** "a b tcp/80" */
function packet(text: string): Packet {
  const [from = '', to = '', what = ''] = text.split(' ')
  const [protocol, port] = what.split('/')
  return {
    from: addresses[from]!,
    to: addresses[to]!,
    protocol: protocol as Packet['protocol'],
    port: Number(port),
  }
}

const selectsA = { podSelector: { matchLabels: { pod: 'a' } } }
const isB = { podSelector: { matchLabels: { pod: 'b' } } }
const isInY = { namespaceSelector: { matchLabels: { ns: 'y' } } }

describe('a policy lets through', () => {
  test.each<[what: string, policies: object[], yes: string[], no: string[]]>([
    ['everything, where there is none', [], ['b a tcp/80', 'world a udp/1', 'a world tcp/1'], []],
    [
      'nothing that comes, where it has no rules',
      [{ podSelector: {} }],
      ['a c tcp/80', 'a a tcp/80', 'c d tcp/1'],
      ['b a tcp/80', 'world b udp/5', 'b6 a6 tcp/80'],
    ],
    ['everything by an empty rule', [{ ...selectsA, ingress: [{}] }], ['b a sctp/9', 'world a tcp/80'], []],
    [
      'what comes, where it is about what leaves',
      [{ ...selectsA, policyTypes: ['Egress'] }],
      ['b a tcp/80', 'b c tcp/1'],
      ['a b tcp/80', 'a world tcp/80', 'a host udp/53'],
    ],
    [
      'both as the API server would fill in its types',
      [{ ...selectsA, egress: [{ to: [isB] }] }],
      ['a b tcp/1'],
      ['b a tcp/80', 'a c tcp/80'],
    ],
    [
      'pods of its own namespace by a selector of pods',
      [{ ...selectsA, ingress: [{ from: [isB] }] }],
      ['b a tcp/80', 'b6 a6 udp/3'],
      ['d a tcp/80', 'world a tcp/80', 'host a tcp/80'],
    ],
    [
      'all of a namespace',
      [{ ...selectsA, ingress: [{ from: [isInY] }] }],
      ['c a tcp/80', 'd a tcp/80', 'c6 a6 tcp/80'],
      ['b a tcp/80', 'world a tcp/80'],
    ],
    [
      'those that both selectors of one peer fit',
      [{ ...selectsA, ingress: [{ from: [{ ...isInY, podSelector: { matchLabels: { pod: 'd' } } }] }] }],
      ['d a tcp/80'],
      ['c a tcp/80', 'b a tcp/80'],
    ],
    [
      'those that one of two peers fits',
      [{ ...selectsA, ingress: [{ from: [isInY, isB] }] }],
      ['d a tcp/80', 'c a tcp/80', 'b a tcp/80'],
      ['world a tcp/80'],
    ],
    [
      'all pods by empty selectors, and nobody else',
      [{ ...selectsA, ingress: [{ from: [{ namespaceSelector: {} }] }] }],
      ['d a tcp/80', 'c a tcp/80', 'b a tcp/80'],
      ['world a tcp/80', 'host a tcp/80'],
    ],
    [
      'anybody by an empty list',
      [{ ...selectsA, ingress: [{ from: [], ports: [{ port: 80 }] }] }],
      ['world a tcp/80'],
      ['world a tcp/81'],
    ],
    [
      'all ports by an empty list',
      [{ ...selectsA, ingress: [{ from: [isB], ports: [] }] }],
      ['b a sctp/80'],
      [],
    ],
    [
      'a block without its exceptions',
      [
        {
          ...selectsA,
          ingress: [
            {
              from: [
                {
                  ipBlock: { cidr: '0.0.0.0/0', except: ['10.244.0.0/31', '10.244.1.0/24', '10.244.0.2/32'] },
                },
              ],
            },
          ],
        },
      ],
      ['world a tcp/80', 'd a tcp/80', 'host a tcp/1'],
      ['b a tcp/80', 'c a tcp/80', 'b6 a6 tcp/80'],
    ],
    [
      'what another block lets through that one excepts',
      [
        {
          ...selectsA,
          ingress: [
            {
              from: [
                { ipBlock: { cidr: '10.0.0.0/8', except: ['10.244.0.0/16'] } },
                { ipBlock: { cidr: '10.244.0.2/32' } },
              ],
            },
          ],
        },
      ],
      ['b a tcp/80'],
      ['d a tcp/80'],
    ],
    [
      'IPv6 blocks',
      [{ ...selectsA, egress: [{ to: [{ ipBlock: { cidr: 'fd00::/64', except: ['fd00::2/128'] } }] }] }],
      ['a6 c6 tcp/80'],
      ['a6 b6 tcp/80', 'a c tcp/80'],
    ],
    [
      'one port',
      [{ ...selectsA, ingress: [{ ports: [{ port: 80 }] }] }],
      ['b a tcp/80'],
      ['b a udp/80', 'b a tcp/81'],
    ],
    [
      'a range of ports',
      [{ ...selectsA, ingress: [{ ports: [{ port: 80, endPort: 90, protocol: 'UDP' }] }] }],
      ['b a udp/80', 'b a udp/90'],
      ['b a udp/79', 'b a udp/91', 'b a tcp/80'],
    ],
    [
      'a protocol',
      [{ ...selectsA, ingress: [{ ports: [{ protocol: 'SCTP' }] }] }],
      ['b a sctp/7'],
      ['b a tcp/7'],
    ],
    [
      'a named port of the pod that is reached',
      [{ podSelector: {}, ingress: [{ ports: [{ port: 'web' }] }] }],
      ['d a tcp/80', 'd b tcp/81'],
      ['d a tcp/81', 'd b tcp/80', 'd a udp/80'],
    ],
    [
      'a named port of the pods that are reached, each its own',
      [{ ...selectsA, egress: [{ ports: [{ port: 'web' }] }] }],
      ['a b tcp/81', 'a c tcp/80', 'a6 c6 tcp/80'],
      ['a b tcp/80', 'a d tcp/80', 'a world tcp/80'],
    ],
    [
      'a named port of some peers',
      [
        {
          ...selectsA,
          egress: [{ to: [isB, isInY], ports: [{ port: 'web' }, { port: 'web', protocol: 'UDP' }] }],
        },
      ],
      ['a b tcp/81', 'a d udp/80', 'a c tcp/80'],
      ['a d tcp/80', 'a c udp/80'],
    ],
    [
      'a named port within a block',
      [{ ...selectsA, egress: [{ to: [{ ipBlock: { cidr: '10.244.0.0/24' } }], ports: [{ port: 'web' }] }] }],
      ['a b tcp/81'],
      ['a c tcp/80', 'a b tcp/80'],
    ],
    [
      'nothing by a name that nobody has',
      [{ ...selectsA, ingress: [{ ports: [{ port: 'none' }] }] }],
      [],
      ['b a tcp/80'],
    ],
    [
      'what any of several lets through',
      [{ ...selectsA }, { podSelector: {}, ingress: [{ from: [isB], ports: [{ port: 80 }] }] }],
      ['b a tcp/80'],
      ['b a tcp/81', 'd a tcp/80'],
    ],
    [
      'what leaves one and comes to another only where both let it',
      [
        { ...selectsA, policyTypes: ['Egress'], egress: [{ to: [isB] }] },
        { ...isB, ingress: [{ ports: [{ port: 80 }] }] },
      ],
      ['a b tcp/80'],
      ['a b tcp/81', 'a c tcp/80'],
    ],
    [
      'by expressions',
      [
        {
          podSelector: { matchExpressions: [{ key: 'pod', operator: 'NotIn', values: ['b'] }] },
          ingress: [
            {
              from: [
                {
                  podSelector: {
                    matchExpressions: [
                      { key: 'constructor', operator: 'DoesNotExist' },
                      { key: 'pod', operator: 'Exists' },
                      { key: 'pod', operator: 'In', values: ['b', 'q'] },
                    ],
                  },
                },
              ],
            },
          ],
        },
      ],
      ['b a tcp/80', 'd b tcp/80'],
      ['d a tcp/80'],
    ],
    [
      'a pod to itself, in any case',
      [{ podSelector: {}, policyTypes: ['Ingress', 'Egress'] }],
      ['a a tcp/80', 'a6 a6 tcp/80'],
      ['a b tcp/80'],
    ],
  ])('%s', (_, policies, yes, no) => {
    const given = cluster(...policies)
    const engine = engineOf(given)
    const all = [...yes, ...no]
    expect(all.filter((text) => passes(engine, packet(text)))).toEqual(yes)
    expect(all.filter((text) => isAllowed(given, packet(text)))).toEqual(yes)
  })
})

test('the address of a pod that has ended is let go at once, and the next pod has it', () => {
  const engine = engineOf(cluster({ ...selectsA, ingress: [{ from: [isB] }] }))
  engine.setPod(
    ...podFacts(pod('x', 'b', { labels: { pod: 'b' }, ips: ['10.244.0.2'], phase: 'Succeeded' }))!,
  )
  settle(engine)
  expect(passes(engine, packet('b a tcp/80'))).toBe(false)
  engine.setPod(...podFacts(pod('x', 'a', { labels: { pod: 'a' }, ips: ['10.244.0.1'], phase: 'Failed' }))!)
  engine.setPod(...podFacts(pod('y', 'next', { ips: ['10.244.0.1'] }))!)
  settle(engine)
  expect(passes(engine, packet('world a tcp/80'))).toBe(true)
})

test('of two pods with one address the younger one has it, unless the runtime knows better', () => {
  const given = cluster({ ...selectsA })
  const engine = engineOf(given)
  engine.setPod(...podFacts(pod('y', 'young', { ips: ['10.244.0.1'], createdAt: '2026-02-02T00:00:00Z' }))!)
  settle(engine)
  expect(passes(engine, packet('b a tcp/80'))).toBe(true)
  engine.setRuntime(new Map([['10.244.0.1', { namespace: 'x', name: 'a', uid: 'x-a' }]]))
  settle(engine)
  expect(passes(engine, packet('b a tcp/80'))).toBe(false)
  // Of that name, but another one.
  engine.setRuntime(new Map([['10.244.0.1', { namespace: 'x', name: 'a', uid: 'former' }]]))
  settle(engine)
  expect(engine.isStranger('10.244.0.1')).toBe(true)
})

test('a pod is protected from when the runtime knows its address, before the API does', () => {
  const engine = engineOf(cluster({ podSelector: {} }))
  engine.setPod(...podFacts(pod('x', 'new', { phase: 'Pending' }))!)
  settle(engine)
  const ask = { from: '203.0.113.5', to: '10.244.0.9', protocol: 'tcp', port: 80 } as const
  expect([engine.isStranger('10.244.0.9'), passes(engine, ask)]).toEqual([true, true])
  engine.setRuntime(new Map([['10.244.0.9', { namespace: 'x', name: 'new', uid: 'x-new' }]]))
  settle(engine)
  expect([engine.isStranger('10.244.0.9'), passes(engine, ask)]).toEqual([false, false])
})

test('a namespace that is not known yet is none without a label', () => {
  const given = cluster({
    ...selectsA,
    ingress: [
      { from: [{ namespaceSelector: { matchExpressions: [{ key: 'evil', operator: 'DoesNotExist' }] } }] },
    ],
  })
  given.namespaces.delete('y')
  const engine = engineOf(given)
  expect(passes(engine, packet('d a tcp/80'))).toBe(false)
  engine.setNamespace(...namespaceFacts(namespace('y'))!)
  settle(engine)
  expect(passes(engine, packet('d a tcp/80'))).toBe(true)
  engine.setNamespace(...namespaceFacts(namespace('y', { evil: 'yes' }))!)
  settle(engine)
  expect(passes(engine, packet('d a tcp/80'))).toBe(false)
})

test('what does not belong in a policy allows nothing, and is told', () => {
  const engine = engineOf(
    cluster({
      ...selectsA,
      ingress: [
        { from: [{ podSelector: { matchExpressions: [{ key: 'pod', operator: 'Like', values: ['b'] }] } }] },
        { from: [{ ipBlock: { cidr: '10.0.0.0/8; flush ruleset' } }] },
        { ports: [{ protocol: 'tcp dport 1 accept' }, { port: 99_999 }, { port: 80, endPort: 70 }] },
      ],
    }),
  )
  expect(['b a tcp/80', 'd a tcp/1'].filter((text) => passes(engine, packet(text)))).toEqual([])
  expect([...engine.problems()].map(([key, reason]) => `${key}: ${reason}`)).toEqual([
    'x/p0: a selector of it is none that is known here, and selects nothing',
    'x/p0: a block of addresses of it is none, and allows nothing',
    'x/p0: a protocol of it is none of TCP, UDP and SCTP, and allows nothing',
    'x/p0: a port of it is none, and allows nothing',
  ])
})

test('a policy of too many peers allows less, and says so', () => {
  const from = Array.from({ length: 3_000 }, (_, index) => ({
    podSelector: { matchLabels: { n: `${index}` } },
  }))
  const engine = engineOf(cluster({ ...selectsA, ingress: [{ from: [...from, isB] }] }))
  expect(passes(engine, packet('b a tcp/80'))).toBe(false)
  expect([...engine.problems()]).toEqual([
    ['x/p0', 'it has more than 2000 peers and ports; what those beyond would allow is refused'],
  ])
  expect(
    engineOf(
      cluster({
        ...selectsA,
        ingress: [{ from: from.slice(0, 1_500), ports: [{ port: 1 }, { protocol: 'UDP' }] }],
      }),
    )
      .problems()
      .next().value,
  ).toEqual([
    'x/p0',
    'it has more than 4000 combinations of peers and ports; what those beyond would allow is refused',
  ])
})

test('nothing that users write is in what nft reads', () => {
  const evil = '"; flush ruleset #'
  const engine = engineOf(
    world({
      namespaces: [namespace('x', { [evil]: evil })],
      pods: [
        pod('x', evil, {
          labels: { [evil]: evil },
          ips: ['10.244.0.1', evil],
          ports: [{ name: evil, containerPort: 80 }],
        }),
      ],
      policies: [
        policy('x', evil, {
          podSelector: { matchLabels: { [evil]: evil } },
          ingress: [
            { from: [{ namespaceSelector: { matchLabels: { [evil]: evil } } }], ports: [{ port: evil }] },
          ],
          egress: [{ ports: [{ port: evil }] }],
        }),
      ],
    }),
  )
  const text = renderAll(engine.rules, { families: [4, 6], ranges: ['10.244.0.0/24'] })
  expect(text).not.toContain('flush')
  expect(text).toMatch(/^[a-z0-9 {},;:./@="!>_<\n-]*$/)
})

test('only what has changed is written', () => {
  const engine = engineOf(cluster({ ...selectsA, ingress: [{ from: [isInY] }] }))
  engine.rules.takeChanges()
  engine.setPod(...podFacts(pod('y', 'e', { ips: ['10.244.1.7'], node: 'there' }))!)
  settle(engine)
  const changes = engine.rules.takeChanges()!
  expect(renderChanges(changes)).toMatch(
    /^add element inet k8s-network-policy peers-[0-9a-f]{24}-4 \{ 10\.244\.1\.7 \}\n$/,
  )
  engine.setPod('y/e', undefined)
  settle(engine)
  engine.setPod(...podFacts(pod('y', 'e', { ips: ['10.244.1.7'], node: 'there' }))!)
  settle(engine)
  expect(engine.rules.takeChanges()).toBeUndefined()
})

describe('by chance', () => {
  test.each(Array.from({ length: 40 }, (_, seed) => seed))(
    'policies mean what they say, however they came: seed %i',
    (seed) => {
      const { random, pick, now, engine, change } = chance(seed)
      for (let step = 0; step < 40; step++) {
        change()
        if (random(3) > 0) continue
        settle(engine)
        if (random(2) === 0) engine.rules.takeChanges()
        for (let asked = 0; asked < 40; asked++) {
          const prefix = pick(['10.0.0.', 'fd00::'])
          const asks: Packet = {
            from: `${prefix}${random(8) + 1}`,
            to: `${prefix}${random(8) + 1}`,
            protocol: pick(['tcp', 'udp', 'sctp']),
            port: pick([80, 81, 53, 443]),
          }
          expect(passes(engine, asks), JSON.stringify(asks)).toBe(isAllowed(now, asks))
        }
      }
      settle(engine)
      expect(textOf(engine)).toBe(textOf(engineOf(now)))
    },
  )
})
