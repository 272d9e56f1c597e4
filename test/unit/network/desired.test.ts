import { describe, expect, test } from 'vitest'
import { type ClusterNetwork, desiredNetwork, macOf, type NodeFacts } from '../../../src/network/desired.ts'

const network: ClusterNetwork = {
  backend: 'vxlan',
  checksumOffload: false,
  clusterCidrs: ['10.244.0.0/16'],
  serviceCidrs: ['10.96.0.0/12'],
  shortestPrefix: { 4: 24, 6: 64 },
}
const own = { name: 'one', podCidrs: ['10.244.0.0/24'], addresses: ['192.0.2.1'] }

function node(name: string, podCidr: string, address: string, createdAt = '2026-01-01T00:00:00Z'): NodeFacts {
  return { name, createdAt, podCidrs: [podCidr], addresses: [address] }
}

const two = node('two', '10.244.1.0/24', '192.0.2.2')
const three = node('three', '10.244.2.0/24', '192.0.2.3')

/** Why a Node beside two others gets nothing; the others have to be as they were. */
function refusal(bad: NodeFacts, given: ClusterNetwork = network): string | undefined {
  const { desired, refused } = desiredNetwork(given, own, [two, bad, three])
  const others = desired.peers.filter(({ name }) => name !== bad.name)
  expect(others).toEqual(desiredNetwork(given, own, [two, three]).desired.peers)
  expect(refused.every(({ name }) => name === bad.name)).toBe(true)
  return refused[0]?.reason
}

test('a Node alone needs nothing', () => {
  expect(desiredNetwork(network, own, []).desired).toEqual({
    backend: 'none',
    deviceName: 'k8s-vxlan',
    peers: [],
  })
})

test('vxlan is a device, and for each other Node its machine, its MAC and a route', () => {
  const { desired, refused } = desiredNetwork(network, own, [two, three])
  expect(refused).toEqual([])
  expect(desired.device).toEqual({
    address: '192.0.2.1',
    mac: macOf('one'),
    vni: 1,
    port: 8472,
    checksumOffload: false,
    own: ['10.244.0.0'],
  })
  expect(
    desiredNetwork({ ...network, checksumOffload: true }, own, [two]).desired.device?.checksumOffload,
  ).toBe(true)
  expect(desired.peers).toContainEqual({
    name: 'two',
    underlay: '192.0.2.2',
    mac: macOf('two'),
    routes: [{ range: '10.244.1.0/24', via: '10.244.1.0' }],
  })
})

test('host-gw is a route to each other Node', () => {
  const { desired } = desiredNetwork({ ...network, backend: 'host-gw' }, own, [two])
  expect(desired).toEqual({
    backend: 'host-gw',
    deviceName: 'k8s-vxlan',
    peers: [{ name: 'two', routes: [{ range: '10.244.1.0/24', via: '192.0.2.2' }] }],
  })
})

test('with the backend none, nothing is led to', () => {
  expect(desiredNetwork({ ...network, backend: 'none' }, own, [two]).desired.peers).toEqual([])
})

test('both families have routes over the underlay of one', () => {
  const dual = {
    ...network,
    clusterCidrs: ['10.244.0.0/16', 'fd00:1::/48'],
    serviceCidrs: ['10.96.0.0/12', 'fd00:2::/108'],
  }
  const other = {
    ...two,
    podCidrs: ['10.244.1.0/24', 'fd00:1:0:1::/64'],
    addresses: ['192.0.2.2', '2001:db8::2'],
  }
  const self = { ...own, podCidrs: ['10.244.0.0/24', 'fd00:1::/64'] }
  const { desired } = desiredNetwork(dual, self, [other])
  expect(desired.device?.own).toEqual(['10.244.0.0', 'fd00:1::'])
  expect(desired.peers[0]?.underlay).toBe('192.0.2.2')
  expect(desired.peers[0]?.routes).toContainEqual({ range: 'fd00:1:0:1::/64', via: 'fd00:1:0:1::' })
  const routed = desiredNetwork({ ...dual, backend: 'host-gw' }, self, [other]).desired
  expect(routed.peers[0]?.routes).toContainEqual({ range: 'fd00:1:0:1::/64', via: '2001:db8::2' })
})

test('a Node that has no range or no address yet is waited for', () => {
  const empty = { ...three, podCidrs: [] }
  const { desired, refused } = desiredNetwork(network, own, [two, empty, { ...three, addresses: [] }])
  expect([desired.peers.length, refused]).toEqual([1, []])
})

test('a Node for which no range is left is named', () => {
  const small = { ...network, clusterCidrs: ['10.244.0.0/23'] }
  const empty = { ...three, podCidrs: [] }
  const half = { ...two, podCidrs: ['10.244.1.0/25'] }
  const elsewhere = node('bad', '0.0.0.0/0', '192.0.2.9')
  for (const others of [[empty], [half, empty]])
    expect(desiredNetwork(small, own, others).refused).toEqual([])
  expect(desiredNetwork(small, own, [elsewhere, empty]).refused.map(({ name }) => name)).toEqual(['bad'])
  const { desired, refused } = desiredNetwork(small, own, [two, empty])
  expect(desired.peers.map(({ name }) => name)).toEqual(['two'])
  expect(refused).toEqual([
    {
      name: 'three',
      reason:
        'there is no range left for its pods: 2 Nodes have all of cluster-cidr 10.244.0.0/23; remove those that are gone (k8s node remove NAME)',
    },
  ])
})

test('the MAC is the same wherever it is made, of this machine alone, and nobody’s group', () => {
  expect(macOf('two')).toBe(macOf('two'))
  expect(macOf('two')).not.toBe(macOf('three'))
  for (const name of ['one', 'two', 'three', 'four'])
    expect(Number.parseInt(macOf(name).slice(0, 2), 16) & 0b11).toBe(0b10)
})

describe('a Node is refused, and the others are kept,', () => {
  test.each([
    ['that claims everything', '0.0.0.0/0', /does not lie in cluster-cidr/],
    ['that claims everything of IPv6', '::/0', /does not lie in cluster-cidr/],
    ['that claims the Services', '10.96.0.0/24', /does not lie in cluster-cidr/],
    ['that claims the network of the nodes', '192.0.2.0/24', /does not lie in cluster-cidr/],
    ['that claims the whole cluster', '10.244.0.0/16', /wider than that of a Node/],
    ['that claims half of the cluster', '10.244.128.0/17', /wider than that of a Node/],
    ['that claims this Node’s range', '10.244.0.0/24', /overlaps with that of the Node one/],
    ['that claims a part of this Node’s range', '10.244.0.128/25', /overlaps with that of the Node one/],
    ['with host bits in its range', '10.244.9.7/24', /is written as no range is/],
    ['whose range is no range', '10.244.9.0/24; reboot', /is none/],
    ['whose range is a text without end', 'x'.repeat(10_000), /is none/],
  ])('%s', (_, podCidr, reason) => {
    const said = refusal(node('bad', podCidr, '192.0.2.9'))
    expect(said).toMatch(reason)
    expect(said?.length).toBeLessThan(300)
  })

  test.each([
    ['whose address is none', 'agent-9', /is none/],
    ['whose address is loopback', '127.0.0.1', /is not one of a machine/],
    ['whose address is multicast', '224.0.0.1', /is not one of a machine/],
    ['whose address is broadcast', '255.255.255.255', /is not one of a machine/],
    ['whose address is unspecified', '0.0.0.0', /is not one of a machine/],
    ['whose address is link-local', '169.254.1.1', /is not one of a machine/],
    ['whose address is a pod’s', '10.244.1.7', /lies in a range of the cluster/],
    ['whose address is a Service’s', '10.96.0.1', /lies in a range of the cluster/],
    ['whose address is this Node’s', '192.0.2.1', /is this Node's/],
    ['whose address is of the other family', '2001:db8::9', /no address of IPv4/],
  ])('%s', (_, address, reason) => {
    expect(refusal(node('bad', '10.244.9.0/24', address))).toMatch(reason)
  })

  test('that is younger than the one whose range it claims', () => {
    const bad = node('a-thief', '10.244.1.128/25', '192.0.2.9', '2026-01-02T00:00:00Z')
    expect(refusal(bad)).toBe('its range "10.244.1.128/25" overlaps with that of the Node two')
  })

  test('that has two ranges of one family', () => {
    const bad = { ...node('bad', '10.244.8.0/24', '192.0.2.9'), podCidrs: ['10.244.8.0/24', '10.244.9.0/24'] }
    expect(refusal(bad)).toBe('it has more than one range of IPv4')
  })

  test('by way of whose address host-gw cannot send', () => {
    const bad = node('bad', '10.244.9.0/24', '2001:db8::9')
    expect(refusal(bad, { ...network, backend: 'host-gw' })).toMatch(/no address of the family of its range/)
  })

  test('beyond the limit', () => {
    const clusterCidrs = ['10.0.0.0/8']
    const many = Array.from({ length: 5_001 }, (_, index) =>
      node(`n${index}`, `10.${index >> 8}.${index & 255}.0/24`, '192.0.2.9'),
    )
    const { desired, refused } = desiredNetwork(
      { ...network, clusterCidrs, serviceCidrs: [] },
      { ...own, podCidrs: [] },
      many,
    )
    expect([desired.peers.length, refused.length]).toEqual([5_000, 1])
  })
})
