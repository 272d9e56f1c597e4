import { describe, expect, test } from 'vitest'
import { parseRange } from '../../../../src/base/address.ts'
import { Assigner } from '../../../../src/network/load-balancer/assign.ts'
import { nodeFacts, serviceFacts, sliceFacts } from '../../../../src/network/load-balancer/facts.ts'
import { reservedPorts } from '../../../../src/network/load-balancer/reserved-ports.ts'
import type { WatchedObject } from '../../../../src/api/watch.ts'
import { node, service, slice, vip } from './objects.ts'

const ranges = ['10.244.0.0/16', '10.96.0.0/12'].flatMap((text) => parseRange(text) ?? [])
const one = node('one', { internal: ['192.0.2.1', 'fd00::1'] })
const two = node('two', { internal: ['192.0.2.2', 'fd00::2'] })
const dual = { ipFamilies: ['IPv4', 'IPv6'] }

function assigner(): Assigner {
  return new Assigner(reservedPorts({ httpsListenPort: 7443, kubeApiserverArg: [] }))
}

/** What each gets: its addresses, or why it gets none. */
function assigned(
  services: readonly WatchedObject[],
  nodes: readonly WatchedObject[] = [two, one],
  slices: readonly WatchedObject[] = [],
  by = assigner(),
): Record<string, string> {
  const known = <Facts>(
    all: readonly WatchedObject[],
    factsOf: (object: WatchedObject) => [string, Facts] | undefined,
  ) =>
    new Map(
      all.flatMap(
        (object) => [factsOf(object) ?? []].filter((entry) => entry.length > 0) as [string, Facts][],
      ),
    )
  const { addresses, refused } = by.assign({
    services: known(services, serviceFacts),
    nodes: known(nodes, (object) => nodeFacts(object, ranges)),
    slices: known(slices, sliceFacts),
  })
  return Object.fromEntries(
    [...addresses].map(([key, found]) => [key.slice(2), refused.get(key)?.reason ?? found.join()]),
  )
}

describe('addresses', () => {
  test('are those of all nodes, by their names, and by the families of the Service', () => {
    const six = service('six', { ports: [81], spec: { ipFamilies: ['IPv6'] } })
    expect(assigned([service('both', { spec: dual }), six])).toEqual({
      both: '192.0.2.1,192.0.2.2,fd00::1,fd00::2',
      six: 'fd00::1,fd00::2',
    })
  })

  test('are external ones where a node has some, of each family by itself', () => {
    const cloud = node('cloud', { internal: ['192.0.2.3', 'fd00::3'], external: ['198.51.100.3'] })
    expect(assigned([service('web', { spec: dual })], [one, cloud])).toEqual({
      web: '198.51.100.3,192.0.2.1,fd00::3,fd00::1',
    })
  })

  test('are those that a machine has, whatever a kubelet says', () => {
    const liar = node('liar', {
      internal: [
        '10.244.0.7',
        '10.96.0.1',
        '127.0.0.1',
        '0.0.0.0',
        '224.0.0.1',
        '255.255.255.255',
        'x',
        '192.0.2.9',
      ],
    })
    const silent: WatchedObject = { metadata: { name: 'silent' }, status: { addresses: 7, conditions: {} } }
    expect(assigned([service('web')], [liar, silent])).toEqual({ web: '192.0.2.9' })
  })

  test('are not those of nodes that are not ready, or excluded, as long as there is one that is', () => {
    const away = node('away', { internal: ['192.0.2.3'], ready: 'Unknown' })
    const excluded = node('excluded', {
      internal: ['192.0.2.4'],
      labels: { 'node.kubernetes.io/exclude-from-external-load-balancers': '' },
    })
    expect(assigned([service('web')], [away, one, excluded])).toEqual({ web: '192.0.2.1' })
    expect(assigned([service('web')], [away, excluded])).toEqual({ web: '192.0.2.3' })
    expect(assigned([service('web')], [excluded])).toEqual({ web: '' })
  })

  test('are of nodes with a ready endpoint alone, where the policy is Local', () => {
    const local = service('local', { spec: { ...dual, externalTrafficPolicy: 'Local' } })
    const endpoints = [
      { nodeName: 'two', conditions: { ready: true } },
      { nodeName: 'one', conditions: { ready: false, serving: true } },
      { conditions: {} },
    ]
    const slices = [
      slice('a', { of: 'local', endpoints }),
      slice('b', { of: 'local', endpoints: [{ nodeName: 'one' }], addressType: 'IPv6' }),
      slice('c', { of: 'local', namespace: 'y', endpoints: [{ nodeName: 'one' }] }),
    ]
    expect(assigned([local], [one, two], slices)).toEqual({ local: '192.0.2.2,fd00::1' })
    expect(assigned([local], [one, two])).toEqual({ local: '' })
  })

  test('are the one that is asked for, if a node has it', () => {
    const asking = (loadBalancerIP: string) => assigned([service('web', { spec: { loadBalancerIP } })])['web']
    expect(asking('192.0.2.2')).toBe('192.0.2.2')
    const unknown = (text: string) =>
      `no Node that is Ready has the address "${text}", of a family of the Service: leave spec.loadBalancerIP away, or name one that a Node has`
    expect(asking('192.0.2.7')).toBe(unknown('192.0.2.7'))
    expect(asking('FD00::1')).toBe(unknown('fd00::1'))
    expect(asking('x'.repeat(100))).toBe(unknown('x'.repeat(64)))
  })
})

describe('Services that are no business of ours', () => {
  test.each([
    ['of another class', service('web', { spec: { loadBalancerClass: 'example.com/other' } })],
    ['of another type', service('web', { spec: { type: 'NodePort' } })],
    ['without a name', { metadata: {}, spec: { type: 'LoadBalancer' } }],
    [
      'whose addresses others have written',
      service('web', { ingress: vip('192.0.2.7'), manager: 'metallb' }),
    ],
  ])('%s', (_, object) => {
    expect(assigned([object])).toEqual({})
  })

  test('by our class they are, and where another has written nothing, or is none any more', () => {
    const services = [
      service('a', { ports: [81], spec: { loadBalancerClass: 'k8s.local/node' } }),
      service('b', { ports: [82], manager: 'metallb' }),
      service('c', { ports: [83], ingress: vip('192.0.2.7'), manager: 'k3s' }),
      service('d', { ports: [84], ingress: vip('192.0.2.7') }),
    ]
    expect(Object.keys(assigned(services)).toSorted()).toEqual(['a', 'b', 'c', 'd'])
  })
})

describe('ports', () => {
  test.each<[string, number | object, string]>([
    ['SSH', 22, '22/TCP'],
    ['the API server', 6443, '6443/TCP'],
    ['the API server', 7443, '7443/TCP'],
    ['the API server', 8443, '8443/TCP'],
    ['the kubelet', 10_250, '10250/TCP'],
    ['etcd', 2379, '2379/TCP'],
    ["etcd's peers", 2380, '2380/TCP'],
    ['vxlan', { port: 8472, protocol: 'UDP' }, '8472/UDP'],
    ['the range of NodePorts (30000-32767)', { port: 30_000, protocol: 'SCTP' }, '30000/SCTP'],
    ['the range of NodePorts (30000-32767)', 32_767, '32767/TCP'],
  ])('of %s are refused, with all others of the Service: %j', (holder, port, text) => {
    const apiServers = slice('kubernetes', {
      ...{ of: 'kubernetes', namespace: 'default', ports: [{ port: 8443, protocol: 'TCP' }] },
    })
    const found = assigned([service('web', { ports: [80, port] }), service('next')], [one], [apiServers])
    expect(found).toEqual({
      web: `port ${text} of the nodes belongs to ${holder}, and to no Service: choose another port`,
      next: '192.0.2.1',
    })
  })

  test('that are the same number of another protocol are free', () => {
    const ports = [22, 6443, 2379].map((port) => ({ port, protocol: 'UDP' }))
    expect(assigned([service('web', { ports: [...ports, 29_999, 32_768] })], [one])).toEqual({
      web: '192.0.2.1',
    })
  })

  test.each([
    ['20000-20100', [20_000, 20_100], [19_999, 20_101, 30_000]],
    ['20000+100', [20_000, 20_100], [20_101]],
    ['20000', [20_000], [20_001]],
  ])('of NodePorts are those that kube-apiserver is told: %s', (range, taken, free) => {
    const holderOf = reservedPorts({
      httpsListenPort: 6443,
      kubeApiserverArg: ['service-node-port-range=1-2', 'v=1', `service-node-port-range=${range}`],
    })
    for (const port of taken) expect(holderOf(`${port}/UDP`)).toContain('NodePorts')
    for (const port of free) expect(holderOf(`${port}/UDP`)).toBeUndefined()
  })

  const refused = (holder: string) =>
    `port 80/TCP of the nodes is that of the Service x/${holder}: this one gets its addresses when that one gives it up`
  const older = '2025-12-31T00:00:00Z'

  test("are the oldest one's, and the next one's when that is gone", () => {
    const by = assigner()
    const [young, old] = [service('a'), service('b', { createdAt: older, ports: [79, 80] })]
    expect(assigned([young, old], [one], [], by)).toEqual({ a: refused('b'), b: '192.0.2.1' })
    expect(assigned([young], [one], [], by)).toEqual({ a: '192.0.2.1' })
    expect(assigned([young, old], [one], [], by)).toEqual({ a: '192.0.2.1', b: refused('a') })
  })

  test('stay with who has them, also when another one leads', () => {
    const holder = service('a', { ingress: vip('192.0.2.1'), manager: 'k8s-servicelb' })
    const changed = service('b', { createdAt: older })
    expect(assigned([holder, changed], [one])).toEqual({ a: '192.0.2.1', b: refused('a') })
  })

  test('of one who is refused himself, or left to others, are free', () => {
    const services = [
      service('a', { createdAt: older, ports: [80, 22] }),
      service('b', { createdAt: older, ingress: vip('192.0.2.7'), manager: 'metallb' }),
      service('c'),
    ]
    expect(assigned(services, [one])['c']).toBe('192.0.2.1')
  })

  test('of other families or protocols are in the way of nobody', () => {
    const services = [
      service('four'),
      service('six', { spec: { ipFamilies: ['IPv6'] } }),
      service('udp', { ports: [{ port: 80, protocol: 'UDP' }] }),
    ]
    expect(assigned(services, [one])).toEqual({ four: '192.0.2.1', six: 'fd00::1', udp: '192.0.2.1' })
  })
})

test('what is not as we would have written it is taken for other addresses', () => {
  const written = (...ingress: object[]) => serviceFacts(service('web', { ingress }))?.[1].addresses
  expect(written(...vip('192.0.2.1'))).toEqual(['192.0.2.1'])
  expect(
    written(
      { ip: '192.0.2.1', ipMode: 'Proxy' },
      { hostname: 'x' },
      { ip: '192.0.2.1', ipMode: 'VIP', ports: [] },
    ),
  ).toEqual(['', '', ''])
})
