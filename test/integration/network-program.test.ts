import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  type ClusterNetwork,
  type DesiredNetwork,
  desiredNetwork,
  noNetwork,
} from '../../src/network/desired.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'

// What leads to other nodes' pods, on real kernels and without clusters: each machine has a bridge with the first address of its range.

interface Site {
  readonly machine: Machine
  readonly name: string
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
}

interface Report {
  readonly changed: readonly string[]
  readonly failed: readonly { readonly node?: string; readonly reason: string }[]
}

const vxlan: ClusterNetwork = {
  backend: 'vxlan',
  checksumOffload: false,
  clusterCidrs: ['10.244.0.0/16', 'fd00:244::/48'],
  serviceCidrs: ['10.96.0.0/12'],
  shortestPrefix: { 4: 24, 6: 64 },
}
const hostGateway: ClusterNetwork = { ...vxlan, backend: 'host-gw' }
const busybox = `${repository}/build/bin/busybox`
const program = `${repository}/build/bin/cni`

let lan: Lan
let sites: Site[]

beforeAll(async () => {
  lan = await Lan.create()
  sites = []
  for (const index of [0, 1]) sites.push(await site(index))
})
afterAll(async () => {
  for (const { machine } of sites ?? []) await machine[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})

async function site(index: number): Promise<Site> {
  const name = `net-${index}`
  const machine = await Machine.create({ name, program: '' })
  const address = await lan.join(machine)
  const six = `fd00:89::${index + 2}`
  const podCidrs = [`10.244.${index}.0/24`, index === 0 ? 'fd00:244::/64' : `fd00:244:0:${index}::/64`]
  const script = [
    `ip address add ${six}/64 dev eth0 nodad`,
    'ip link add pods type bridge',
    'ip link set pods up',
    `ip address add 10.244.${index}.1/24 dev pods`,
    `ip address add fd00:244:0:${index}::1/64 dev pods nodad`,
  ]
  await machine.exec(['bash', '-ec', script.join('\n')])
  return { machine, name, addresses: [address, six], podCidrs }
}

function at(index: number): Site {
  const found = sites[index]
  if (found === undefined) throw new Error(`there is no site ${index}`)
  return found
}

function desired(network: ClusterNetwork, index: number, { six = false } = {}): DesiredNetwork {
  const self = at(index)
  const others = sites.filter((other) => other !== self).map((other) => ({ ...other, createdAt: '' }))
  const addresses = six ? self.addresses.toReversed() : self.addresses
  const { refused, ...answer } = desiredNetwork(network, { ...self, addresses }, others)
  expect(refused).toEqual([])
  return answer.desired
}

async function apply(index: number, wanted: DesiredNetwork): Promise<Report> {
  const { stdout } = await at(index).machine.exec([program, 'network-apply'], {
    stdin: JSON.stringify(wanted),
  })
  return JSON.parse(stdout) as Report
}

async function applyAll(network: ClusterNetwork, options?: { six: boolean }): Promise<Report[]> {
  const reports: Report[] = []
  for (const index of sites.keys()) reports.push(await apply(index, desired(network, index, options)))
  return reports
}

/** From one bridge to the other, or from wherever the kernel would send. */
async function reaches(options: { six?: boolean; bytes?: number; asHost?: boolean } = {}): Promise<boolean> {
  const { six = false, bytes = 56, asHost = false } = options
  const [from, to] = six ? ['fd00:244::1', 'fd00:244:0:1::1'] : ['10.244.0.1', '10.244.1.1']
  const source = asHost ? [] : ['-I', from]
  const ping = [
    busybox,
    six ? 'ping6' : 'ping',
    '-c',
    '2',
    '-i',
    '0.2',
    '-W',
    '2',
    '-s',
    String(bytes),
    ...source,
    to,
  ]
  const { exitCode } = await at(0).machine.exec(ping, { check: false })
  return exitCode === 0
}

async function ip(index: number, ...words: string[]): Promise<string> {
  return (await at(index).machine.exec(['ip', ...words], { check: false })).stdout.trim()
}

async function leftovers(index: number): Promise<string> {
  return [
    await ip(index, 'route', 'show', 'proto', '75'),
    await ip(index, '-6', 'route', 'show', 'proto', '75'),
    await ip(index, 'link', 'show', 'k8s-vxlan'),
  ].join('')
}

test('without it, nothing leads to the pods of the other machine', async () => {
  expect(await reaches()).toBe(false)
  expect(await leftovers(0)).toBe('')
})

test('vxlan: pods and machines reach the pods of the other machine, in both families, with packets of any size', async () => {
  const [report] = await applyAll(vxlan)
  expect(report?.failed).toEqual([])
  expect(report?.changed).toContain('device k8s-vxlan, mtu 1450, from 10.89.0.2')
  expect(report?.changed).toContain('checksum offload of k8s-vxlan is off')
  expect(await reaches()).toBe(true)
  expect(await reaches({ bytes: 8000 })).toBe(true)
  expect(await reaches({ asHost: true })).toBe(true)
  expect(await reaches({ six: true })).toBe(true)
  expect(await reaches({ six: true, bytes: 8000 })).toBe(true)
})

test('what is as it should be is left alone', async () => {
  expect(await applyAll(vxlan)).toEqual(Array(2).fill({ changed: [], failed: [] }))
})

test('checksums are left to the network card where that is wanted, and no longer where it is not', async () => {
  const offload: ClusterNetwork = { ...vxlan, checksumOffload: true }
  const state = (isOn: boolean) => ({
    changed: [`checksum offload of k8s-vxlan is ${isOn ? 'on' : 'off'}`],
    failed: [],
  })
  expect(await applyAll(offload)).toEqual(Array(2).fill(state(true)))
  expect(await applyAll(offload)).toEqual(Array(2).fill({ changed: [], failed: [] }))
  for (const six of [false, true]) expect(await reaches({ six, bytes: 8000 })).toBe(true)
  expect(await applyAll(vxlan)).toEqual(Array(2).fill(state(false)))
})

test.each([
  ['the device', 'link delete k8s-vxlan'],
  ['its route', 'route delete 10.244.1.0/24'],
  ['its route of IPv6', '-6 route delete fd00:244:0:1::/64'],
  ['its neighbour', 'neighbour delete 10.244.1.0 dev k8s-vxlan'],
  ['its address', 'address delete 10.244.0.0/32 dev k8s-vxlan'],
  ['the device is down', 'link set k8s-vxlan down'],
  ['another mtu', 'link set k8s-vxlan mtu 1400'],
])('what was lost is there again: %s', async (_, words) => {
  await ip(0, ...words.split(' '))
  const report = await apply(0, desired(vxlan, 0))
  expect(report.failed).toEqual([])
  expect(report.changed).not.toEqual([])
  expect(await reaches()).toBe(true)
  expect(await reaches({ six: true })).toBe(true)
  expect(await apply(0, desired(vxlan, 0))).toEqual({ changed: [], failed: [] })
})

test('a wrong entry of the forwarding database is mended, and one that is nobody’s is removed', async () => {
  const mac = desired(vxlan, 0).peers[0]?.mac ?? ''
  const bridge = (...words: string[]) => at(0).machine.exec(['bridge', 'fdb', ...words])
  await bridge('replace', mac, 'dev', 'k8s-vxlan', 'dst', '10.89.0.99', 'self', 'permanent')
  await bridge('append', '02:00:00:00:00:99', 'dev', 'k8s-vxlan', 'dst', '10.89.0.99', 'self', 'permanent')
  expect(await reaches()).toBe(false)
  const report = await apply(0, desired(vxlan, 0))
  expect(report.changed).toEqual([`${mac} is at 10.89.0.3`, '02:00:00:00:00:99 is nowhere any more'])
  expect(await reaches()).toBe(true)
})

test('a machine that was cut off is reached again without anybody doing anything', async () => {
  await lan.cut(at(1).machine)
  expect(await reaches()).toBe(false)
  await lan.heal(at(1).machine)
  expect(await reaches()).toBe(true)
})

test('another backend takes the place of the former one, whose device goes, and back', async () => {
  await applyAll(hostGateway)
  expect(await ip(0, 'link', 'show', 'k8s-vxlan')).toBe('')
  expect(await ip(0, 'route', 'show', 'proto', '75')).toBe('10.244.1.0/24 via 10.89.0.3 dev eth0')
  expect(await reaches({ bytes: 8000 })).toBe(true)
  expect(await reaches({ six: true })).toBe(true)
  expect(await applyAll(hostGateway)).toEqual(Array(2).fill({ changed: [], failed: [] }))
  await applyAll(vxlan)
  expect(await ip(0, '-6', 'route', 'show', 'proto', '75')).toContain('dev k8s-vxlan')
  expect(await ip(0, '-6', 'route', 'show', 'proto', '75')).not.toContain('eth0')
  expect(await reaches()).toBe(true)
  expect(await reaches({ six: true })).toBe(true)
})

test('the device is made anew for another address of this machine, and packets of IPv6 take more off the mtu', async () => {
  const [report] = await applyAll(vxlan, { six: true })
  expect(report?.failed).toEqual([])
  expect(report?.changed).toContain('device k8s-vxlan, mtu 1430, from fd00:89::2')
  expect(await reaches({ bytes: 8000 })).toBe(true)
  expect(await reaches({ six: true, bytes: 8000 })).toBe(true)
  await applyAll(vxlan)
  expect(await reaches()).toBe(true)
})

test('host-gw refuses by name who is behind a router, or this machine itself, and leads to the others', async () => {
  const wanted = desired(hostGateway, 0)
  const far = { name: 'far', routes: [{ range: '10.244.7.0/24', via: '192.0.2.7' }] }
  const self = { name: 'self', routes: [{ range: '10.244.8.0/24', via: '10.89.0.2' }] }
  const report = await apply(0, { ...wanted, peers: [far, self, ...wanted.peers] })
  expect(report.failed).toEqual([
    {
      node: 'far',
      reason: '192.0.2.7 is behind the router 10.89.0.1: host-gw needs nodes on one network, vxlan does not',
    },
    { node: 'self', reason: '10.89.0.2 is an address of this machine' },
  ])
  expect(await ip(0, 'route', 'show', 'proto', '75')).toBe('10.244.1.0/24 via 10.89.0.3 dev eth0')
  await apply(0, desired(vxlan, 0))
})

test('a Node that goes takes what led to it along, and nothing of others', async () => {
  const wanted = desired(vxlan, 0)
  const more = {
    ...at(1),
    name: 'third',
    podCidrs: ['10.244.3.0/24'],
    addresses: ['10.89.0.77'],
    createdAt: '',
  }
  const both = desiredNetwork(vxlan, at(0), [{ ...at(1), createdAt: '' }, more]).desired
  await apply(0, both)
  expect(await ip(0, 'route', 'show', '10.244.3.0/24')).toContain('k8s-vxlan')
  await ip(0, 'route', 'add', '10.99.0.0/24', 'via', '10.89.0.1')
  const { changed } = await apply(0, wanted)
  expect(changed).toHaveLength(3)
  expect(await ip(0, 'route', 'show', '10.244.3.0/24')).toBe('')
  expect(await ip(0, 'neighbour', 'show', 'dev', 'k8s-vxlan')).not.toContain('10.244.3.0')
  expect(await ip(0, 'route', 'show', '10.99.0.0/24')).toContain('10.89.0.1')
  expect(await reaches()).toBe(true)
})

test('a route of somebody else to the same range stays, and is named', async () => {
  await ip(0, 'route', 'delete', '10.244.1.0/24')
  await ip(0, 'route', 'add', '10.244.1.0/24', 'via', '10.89.0.1')
  const report = await apply(0, desired(vxlan, 0))
  expect(report.failed).toEqual([
    { node: 'net-1', reason: 'somebody else has a route to 10.244.1.0/24 (boot); remove it' },
  ])
  expect(await ip(0, 'route', 'show', '10.244.1.0/24')).toContain('via 10.89.0.1 dev eth0')
  await ip(0, 'route', 'delete', '10.244.1.0/24')
  expect((await apply(0, desired(vxlan, 0))).failed).toEqual([])
  expect(await reaches()).toBe(true)
})

test('removal leaves nothing, and is repeatable', async () => {
  for (const index of sites.keys()) {
    expect((await apply(index, noNetwork)).failed).toEqual([])
    expect(await leftovers(index)).toBe('')
    expect(await apply(index, noNetwork)).toEqual({ changed: [], failed: [] })
  }
  expect(await reaches()).toBe(false)
  expect(await ip(0, 'route', 'show', '10.99.0.0/24')).toContain('10.89.0.1')
})

test('where the device cannot be made, nothing is, and whose it is stays', async () => {
  const attempt = () =>
    at(0).machine.exec([program, 'network-apply'], { stdin: JSON.stringify(desired(vxlan, 0)), check: false })
  await ip(0, 'link', 'add', 'flannel.1', 'type', 'vxlan', 'id', '1', 'dstport', '8472', 'local', '10.89.0.2')
  await ip(0, 'link', 'set', 'flannel.1', 'up')
  const taken = await attempt()
  expect([taken.exitCode, taken.stdout]).toEqual([1, ''])
  expect(taken.stderr).toContain(
    'another vxlan device of this machine has VNI 1 and port 8472 (flannel?); remove it',
  )
  expect(await leftovers(0)).toBe('')
  await ip(0, 'link', 'delete', 'flannel.1')
  await ip(0, 'link', 'add', 'k8s-vxlan', 'type', 'bridge')
  const foreign = await attempt()
  expect(foreign.stderr).toContain(
    "the interface k8s-vxlan is somebody else's, of type bridge: remove or rename it",
  )
  expect((await apply(0, noNetwork)).failed).toEqual([])
  expect(await ip(0, 'link', 'show', 'k8s-vxlan')).toContain('k8s-vxlan')
})

test.each([
  ['no JSON', 'vxlan'],
  ['another backend', '{"backend":"carrier-pigeon"}'],
  ['no device', '{"backend":"vxlan","deviceName":"k8s-vxlan"}'],
  ['no MAC', '{"backend":"vxlan","deviceName":"k8s-vxlan","device":{"mac":"x"}}'],
])('what it cannot make sense of changes nothing: %s', async (_, stdin) => {
  const { exitCode, stderr } = await at(1).machine.exec([program, 'network-apply'], { stdin, check: false })
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining('cannot make the network between nodes: ')])
  expect(await leftovers(1)).toBe('')
})

test('no range of a peer is the whole world', async () => {
  const wanted = {
    ...{ backend: 'host-gw' as const, deviceName: 'k8s-vxlan' },
    peers: [{ name: 'bad', routes: [{ range: '0.0.0.0/0', via: '10.89.0.2' }] }],
  }
  const report = await apply(1, wanted)
  expect(report).toEqual({
    changed: [],
    failed: [{ node: 'bad', reason: 'the route to 0.0.0.0/0 by way of 10.89.0.2 is none' }],
  })
  expect(await ip(1, 'route', 'show', 'default')).toBe('default via 10.89.0.1 dev eth0')
})

// The program is flannel's plugin, too, in images of nodes: flanneld, which leads between nodes there, is not needed for it.
test('the plugin flannel gives pods what flanneld says, and takes it back when flanneld says otherwise', async () => {
  const { machine } = at(0)
  const script = [
    'mkdir -p /run/flannel /tmp/plugins',
    `for name in flannel bridge host-local; do ln -sf ${program} /tmp/plugins/$name; done`,
    ...['FLANNEL_NETWORK=10.244.0.0/16', 'FLANNEL_SUBNET=10.244.7.1/24', 'FLANNEL_MTU=1450'].map(
      (line) => `echo ${line} >>/run/flannel/subnet.env`,
    ),
    'ip netns add flannel-pod',
  ]
  await machine.exec(['bash', '-ec', script.join('\n')])
  const stdin = JSON.stringify({
    ...{ cniVersion: '1.0.0', name: 'cbr0', type: 'flannel', dataDir: '/tmp/flannel' },
    delegate: { bridge: 'cni-flannel', hairpinMode: true },
  })
  const call = (command: string, given = stdin) =>
    machine.exec(['/tmp/plugins/flannel'], {
      ...{ stdin: given, check: false },
      env: {
        ...{ CNI_COMMAND: command, CNI_CONTAINERID: 'one', CNI_NETNS: '/run/netns/flannel-pod' },
        ...{ CNI_IFNAME: 'eth0', CNI_PATH: '/tmp/plugins' },
      },
    })
  const inPod = async (line: string) => (await ip(0, '-n', 'flannel-pod', ...line.split(' '))).trim()
  const added = await call('ADD')
  expect(added).toMatchObject({ exitCode: 0 })
  const [address] = (JSON.parse(added.stdout) as { ips: { address: string }[] }).ips
  expect(address?.address).toMatch(/^10\.244\.7\.\d+\/24$/)
  expect(await inPod('link show eth0')).toContain('mtu 1450')
  expect(await inPod('route show 10.244.0.0/16')).toContain('via 10.244.7.1')
  expect(await ip(0, 'address', 'show', 'cni-flannel')).toContain('10.244.7.1/24')
  const withResult = { ...(JSON.parse(stdin) as object), prevResult: JSON.parse(added.stdout) as object }
  expect(await call('CHECK', JSON.stringify(withResult))).toMatchObject({ exitCode: 0 })

  await machine.exec(['bash', '-ec', 'echo FLANNEL_SUBNET=nonsense >/run/flannel/subnet.env'])
  const refused = await call('ADD')
  expect(refused.exitCode).toBe(1)
  expect(refused.stdout).toContain('/run/flannel/subnet.env: FLANNEL_SUBNET')
  await machine.exec(['rm', '/run/flannel/subnet.env'])
  expect((await call('ADD')).stdout).toContain('cannot read what flanneld writes, is it running?')
  for (const delegate of [{ ipam: {} }, { name: 'x' }, { type: 7 }]) {
    const given = JSON.stringify({ ...(JSON.parse(stdin) as object), delegate })
    expect((await call('ADD', given)).stdout).toContain(`cannot use delegate.${Object.keys(delegate)[0]}`)
  }

  // Twice: what is gone is gone.
  for (const _ of [1, 2]) expect(await call('DEL')).toMatchObject({ exitCode: 0 })
  expect(await inPod('link show')).not.toContain('eth0')
  expect((await machine.exec(['ls', '/tmp/flannel'])).stdout).toBe('')
  await machine.exec(['bash', '-ec', 'ip netns delete flannel-pod; ip link delete cni-flannel'])
})
