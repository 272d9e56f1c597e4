import { expect, test } from 'vitest'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import { podMtu, uplinkMtu } from '../../../../src/node/render/overlay.ts'
import { hostTree } from '../host-tree.ts'

test.each([
  ['vxlan over IPv4', 1500, 'vxlan', '192.0.2.1', 1450],
  ['vxlan over IPv6', 1500, 'vxlan', '2001:db8::1', 1430],
  ['vxlan over large packets', 9000, 'vxlan', '192.0.2.1', 8950],
  ['vxlan over nobody knows what', undefined, 'vxlan', '192.0.2.1', 1450],
  ['routes', 1500, 'host-gw', '192.0.2.1', 1500],
  ['routes over nobody knows what', undefined, 'host-gw', '192.0.2.1', undefined],
  ['a network of others', 1400, 'none', '192.0.2.1', 1400],
] as const)('the mtu of pods: %s', (_, uplink, backend, nodeIp, mtu) => {
  expect(podMtu(uplink, { backend, nodeIp })).toBe(mtu)
})

test("an uplink is the interface that has the Node's address, not lo, and only where /sys shows it", () => {
  const files = new HostFiles(
    hostTree({ '/sys/class/net/eth1/mtu': '9000\n', '/sys/class/net/lo/mtu': '65536\n' }),
  )
  const entry = (address: string, internal = false) => [
    { address, internal, netmask: '', mac: '', family: 'IPv4' as const, cidr: null },
  ]
  const interfaces = {
    lo: entry('192.0.2.9', true),
    eth0: entry('192.0.2.1'),
    eth1: entry('192.0.2.2'),
  }
  expect(uplinkMtu(files, '192.0.2.2', interfaces)).toBe(9000)
  expect(uplinkMtu(files, '192.0.2.1', interfaces)).toBeUndefined()
  expect(uplinkMtu(files, '192.0.2.9', interfaces)).toBeUndefined()
  expect(uplinkMtu(files, '192.0.2.7', interfaces)).toBeUndefined()
})
