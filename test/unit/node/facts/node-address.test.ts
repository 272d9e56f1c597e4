import { mkdirSync } from 'node:fs'
import { networkInterfaces, type NetworkInterfaceInfo } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  type InterfaceAddress,
  loopbackAddresses,
  readInterfaceAddresses,
} from '../../../../src/node/facts/addresses.ts'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import {
  chooseNodeAddress,
  chooseOtherAddress,
  describePassedOver,
  readNetwork,
  routeSource,
} from '../../../../src/node/facts/node-address.ts'
import { hostTree } from '../host-tree.ts'

const ranges = { clusterCidr: '10.244.0.0/16', serviceCidr: '10.96.0.0/12' }

function on(name: string, address: string, kind: InterfaceAddress['kind'] = 'plain'): InterfaceAddress {
  return { interface: name, address, kind }
}

const eth0 = on('eth0', '192.0.2.7')
const cni0 = on('cni0', '10.244.0.1', 'bridge')
const docker0 = on('docker0', '172.17.0.1', 'bridge')

describe('the address of the Node is', () => {
  test.each([
    {
      what: "the default route's, whichever interface comes first",
      network: { addresses: [on('eth1', '192.168.1.1'), eth0], routeSource: '192.0.2.7' },
      address: '192.0.2.7',
    },
    {
      what: 'the last one on lo, where somebody has put it to announce it',
      network: { addresses: [eth0, on('lo', '198.51.100.1', 'loopback')], last: '198.51.100.1' },
      address: '198.51.100.1',
    },
    {
      what: "an interface's rather than one of lo",
      network: { addresses: [on('lo', '198.51.100.1', 'loopback'), eth0] },
      address: '192.0.2.7',
    },
    {
      what: "the default route's on a bridge that is the machine's own",
      network: { addresses: [on('br0', '192.0.2.8', 'bridge')], routeSource: '192.0.2.8' },
      address: '192.0.2.8',
    },
    {
      what: 'a plain one before a tunnel, and never that of a bridge of containers',
      network: { addresses: [docker0, on('wg0', '10.9.0.1', 'tunnel'), on('eth1', '192.168.1.1')] },
      address: '192.168.1.1',
    },
    {
      what: "a tunnel's where there is nothing else",
      network: { addresses: [docker0, on('wg0', '10.9.0.1', 'tunnel')] },
      address: '10.9.0.1',
    },
    {
      what: 'the last one, as long as an interface has it, although the default route has moved',
      network: {
        addresses: [eth0, on('wlan0', '198.51.100.5')],
        routeSource: '198.51.100.5',
        last: '192.0.2.7',
      },
      address: '192.0.2.7',
    },
    {
      what: 'another one when the last one is gone',
      network: { addresses: [on('eth0', '192.0.2.9')], routeSource: '192.0.2.9', last: '192.0.2.7' },
      address: '192.0.2.9',
    },
    {
      what: "none of the cluster's ranges, with a default route by them",
      network: {
        addresses: [on('eth0', '10.244.7.7'), on('eth1', '192.168.1.1')],
        routeSource: '10.244.7.7',
      },
      address: '192.168.1.1',
    },
    {
      what: 'none of the other family',
      network: { addresses: [on('eth0', '2001:db8::7'), eth0] },
      address: '192.0.2.7',
    },
    {
      what: 'none that is link-local or on lo',
      network: { addresses: [on('eth0', '169.254.9.9'), on('eth1', '127.0.0.9'), on('eth2', '192.168.1.1')] },
      address: '192.168.1.1',
    },
  ])('$what', ({ network, address }) => {
    const chosen = chooseNodeAddress({ ...ranges }, { routeSource: undefined, last: undefined, ...network })
    expect(chosen).toEqual({ address, isPresent: true })
  })

  test('the last one while the network is away, and not that of cni0', () => {
    const network = { addresses: [cni0, docker0], routeSource: undefined, last: '192.0.2.7' }
    expect(chooseNodeAddress({ ...ranges }, network)).toEqual({ address: '192.0.2.7', isPresent: false })
  })

  test('not the last one when the ranges have been changed so that it lies in them', () => {
    const network = { addresses: [cni0], routeSource: undefined, last: '10.96.3.3' }
    expect(chooseNodeAddress({ ...ranges }, network)).toBeUndefined()
  })

  test('unknown on a machine that never had a network', () => {
    const network = { addresses: [cni0, docker0], routeSource: undefined, last: undefined }
    expect(chooseNodeAddress({ ...ranges }, network)).toBeUndefined()
  })

  test('what the user wrote, there or not', () => {
    const network = { addresses: [eth0], routeSource: '192.0.2.7', last: '192.0.2.7' }
    const choose = (nodeIp: string) => chooseNodeAddress({ ...ranges, nodeIp }, network)
    expect(choose('192.0.2.7')).toEqual({ address: '192.0.2.7', isPresent: true })
    expect(choose('192.0.2.200')).toEqual({ address: '192.0.2.200', isPresent: false })
  })

  test('one that lasts before one that the kernel sends from and gives up again', () => {
    const ipv6 = { clusterCidr: 'fd02::/56', serviceCidr: 'fd01::/112' }
    const passing = on('eth0', '2001:db8:1::9', 'passing')
    const network = { routeSource: passing.address, last: undefined }
    const lasting = on('eth0', '2001:db8:1::7')
    const address = (...addresses: InterfaceAddress[]) =>
      chooseNodeAddress(ipv6, { ...network, addresses })?.address
    expect(address(passing, lasting)).toBe(lasting.address)
    expect(address(passing)).toBe(passing.address)
  })

  test('of the family of the service range', () => {
    const network = {
      addresses: [eth0, on('eth0', 'fe80::1'), on('eth0', '2001:db8:1::7')],
      routeSource: undefined,
      last: undefined,
    }
    const ipv6 = { clusterCidr: 'fd02::/56', serviceCidr: 'fd01::/112' }
    expect(chooseNodeAddress(ipv6, network)?.address).toBe('2001:db8:1::7')
  })
})

test('whoever waits for an address is told why those that there are cannot be used', () => {
  const addresses = [cni0, docker0, on('eth0', '169.254.1.1'), on('eth0', '2001:db8::1')]
  expect(describePassedOver({ ...ranges }, { addresses })).toBe(
    '10.244.0.1 on cni0 lies in cluster-cidr 10.244.0.0/16; 172.17.0.1 on docker0 is a bridge of containers; 169.254.1.1 on eth0 is link-local',
  )
  const others = [on('eth0', 'fe80::1'), on('eth0', '2001:db8::1')]
  expect(describePassedOver({ ...ranges }, { addresses: others })).toBe(
    '2001:db8::1 on eth0 is IPv6, and service-cidr 10.96.0.0/12 is IPv4',
  )
  expect(describePassedOver({ ...ranges }, { addresses: [on('eth0', 'fe80::1')] })).toBe(
    'no interface that is up has one',
  )
  expect(describePassedOver({ ...ranges }, { addresses: [] })).toBe('no interface that is up has one')
})

test('what is sent to an address comes from one of this machine, or nothing leads there', async () => {
  expect(await routeSource('127.0.0.9')).toBe('127.0.0.1')
  // No single machine has it.
  expect(await routeSource('255.255.255.255')).toBeUndefined()
})

describe('an interface is', () => {
  const entry = (address: string, internal = false) => [{ address, internal } as NetworkInterfaceInfo]
  const card = (name: string, type = '1') => ({ [`/sys/class/net/${name}/type`]: `${type}\n` })

  function kinds(files: Record<string, string>, directories: string[] = []): Record<string, string> {
    const root = hostTree(files)
    for (const path of directories) mkdirSync(join(root, path), { recursive: true })
    const names = new Set(Object.keys(files).map((path) => path.split('/')[4] ?? ''))
    const entries = Object.fromEntries([...names].map((name) => [name, entry('192.0.2.1')]))
    const found = readInterfaceAddresses(new HostFiles(root), entries)
    return Object.fromEntries(found.map(({ interface: name, kind }) => [name, kind]))
  }

  test('a bridge of containers unless a card, a bond or a VLAN is one of its ports', () => {
    const found = kinds({
      ...card('cni0'),
      '/sys/class/net/cni0/bridge/bridge_id': '',
      '/sys/class/net/cni0/brif/veth1/state': '3',
      ...card('veth1'),
      ...card('docker0'),
      '/sys/class/net/docker0/bridge/bridge_id': '',
      ...card('br0'),
      '/sys/class/net/br0/bridge/bridge_id': '',
      '/sys/class/net/br0/brif/eth0/state': '3',
      ...card('eth0'),
      '/sys/class/net/eth0/device/vendor': '0x1af4',
      ...card('br1'),
      '/sys/class/net/br1/bridge/bridge_id': '',
      '/sys/class/net/br1/brif/bond0/state': '3',
      ...card('bond0'),
      '/sys/class/net/bond0/uevent': 'DEVTYPE=bond\nINTERFACE=bond0\n',
    })
    expect(found).toEqual({
      cni0: 'bridge',
      docker0: 'bridge',
      br0: 'plain',
      br1: 'plain',
      veth1: 'plain',
      eth0: 'plain',
      bond0: 'plain',
    })
  })

  test('a tunnel by its kind', () => {
    const found = kinds({
      ...card('tun0', '65534'),
      ...card('tap0'),
      '/sys/class/net/tap0/tun_flags': '0x1002\n',
      ...card('wg0', '65534'),
      ...card('flannel.1'),
      '/sys/class/net/flannel.1/uevent': 'DEVTYPE=vxlan\n',
      ...card('ib0', '32'),
      ...card('wlan0'),
      '/sys/class/net/wlan0/uevent': 'DEVTYPE=wlan\n',
    })
    expect(found).toEqual({
      tun0: 'tunnel',
      tap0: 'tunnel',
      wg0: 'tunnel',
      'flannel.1': 'tunnel',
      ib0: 'plain',
      wlan0: 'plain',
    })
  })

  test('plain where /sys says nothing of it', () => {
    const found = readInterfaceAddresses(new HostFiles(hostTree({})), { eth0: entry('192.0.2.1') })
    expect(found).toEqual([on('eth0', '192.0.2.1')])
  })

  test('known by the flags of its addresses as one that has passing ones', () => {
    const root = hostTree({
      '/proc/net/if_inet6': `20010db8000100000000000000000007 02 40 00 80     eth0
20010db8000100000000000000000009 02 40 00 01     eth0
20010db800010000000000000000000b 02 40 00 20     eth0
`,
    })
    const addresses = ['2001:db8:1::7', '2001:db8:1::9', '2001:db8:1::b', '192.0.2.1'].flatMap((a) =>
      entry(a),
    )
    const found = readInterfaceAddresses(new HostFiles(root), { eth0: addresses })
    expect(found.map(({ kind }) => kind)).toEqual(['plain', 'passing', 'passing', 'plain'])
  })

  test('left out when it is the loopback one', () => {
    const entries = { lo: entry('192.0.2.1', true), eth0: entry('192.0.2.2') }
    expect(
      readInterfaceAddresses(new HostFiles(hostTree({})), entries).map(({ address }) => address),
    ).toEqual(['192.0.2.2'])
  })
})

test('this machine is read as it is', async () => {
  const own = Object.values(networkInterfaces()).flatMap((entries) => entries ?? [])
  const settings = { ...ranges, last: undefined, held: undefined }
  const network = await readNetwork(new HostFiles(), settings)
  const outside = own.filter(({ internal }) => !internal).map(({ address }) => address)
  expect(network.addresses.map(({ address }) => address)).toEqual([...outside, ...loopbackAddresses()])
  if (network.routeSource !== undefined)
    expect(own.map(({ address }) => address)).toContain(network.routeSource)
})

describe('in a cluster of both families', () => {
  const both = { clusterCidr: 'fd00:244::/56,10.244.0.0/16', serviceCidr: 'fd00:96::/112,10.96.0.0/12' }
  const nothing = { routeSource: undefined, last: undefined }
  const six = on('eth0', '2001:db8::7')
  const choose = (addresses: readonly InterfaceAddress[], given: object = {}, nodeIp?: string) => {
    const settings = nodeIp === undefined ? both : { ...both, nodeIp }
    const network = { addresses, ...nothing, other: nothing, ...given }
    return [chooseNodeAddress(settings, network)?.address, chooseOtherAddress(settings, network)]
  }

  test('each family has an address of its own, outside of all ranges', () => {
    expect(choose([eth0, six])).toEqual(['2001:db8::7', '192.0.2.7'])
    expect(choose([on('eth0', '10.96.0.5'), on('eth1', 'fd00:244::1'), six])).toEqual([
      '2001:db8::7',
      undefined,
    ])
  })

  test('the first family has to have one, the second need not', () => {
    expect(choose([eth0])).toEqual([undefined, '192.0.2.7'])
    expect(choose([six])).toEqual(['2001:db8::7', undefined])
  })

  test('the last one of the second family counts while an interface has it', () => {
    const other = { routeSource: '192.0.2.7', last: '198.51.100.9' }
    expect(choose([six, eth0, on('eth1', '198.51.100.9')], { other })).toEqual([
      '2001:db8::7',
      '198.51.100.9',
    ])
    expect(choose([six, eth0], { other })).toEqual(['2001:db8::7', '192.0.2.7'])
  })

  test('what the user wrote is taken by its family, and the rest is found', () => {
    expect(choose([six, eth0], {}, '192.0.2.7,2001:db8::9')).toEqual(['2001:db8::9', '192.0.2.7'])
    expect(choose([six, eth0], {}, '2001:db8::9')).toEqual(['2001:db8::9', '192.0.2.7'])
    expect(choose([six], {}, '192.0.2.9')).toEqual(['2001:db8::7', undefined])
  })

  test('this machine is looked at for both', async () => {
    const settings = {
      ...both,
      last: undefined,
      otherLast: '192.0.2.3',
      held: undefined,
    }
    expect((await readNetwork(new HostFiles(), settings)).other?.last).toBe('192.0.2.3')
  })
})
