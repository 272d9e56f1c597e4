import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DesiredNetwork, desiredNetwork } from '../../src/network/desired.ts'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository, type Running } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// A server, and a Node beside it that is a bare machine: its bridge has the first address of its range, and what a daemon would
// do there, the test does.

const busybox = `${repository}/build/bin/busybox`
const program = `${repository}/build/bin/cni`
const podOfOther = '10.244.1.1'

let lan: Lan
let cluster: Cluster
let other: Machine
let addresses: string[]

beforeAll(async () => {
  lan = await Lan.create()
  const machine = await Machine.create({ name: 'network' })
  cluster = new Cluster(machine, {})
  other = await Machine.create({ name: 'network-other', program: '' })
  addresses = [await lan.join(machine), await lan.join(other)]
  const bridge = [
    'ip link add pods type bridge',
    'ip link set pods up',
    `ip address add ${podOfOther}/24 dev pods`,
  ]
  await other.exec(['bash', '-ec', bridge.join('\n')])
  addTestImage(machine)
  cluster.startDaemon()
  await cluster.ready()
  await cluster.waitFor('pods are admitted', () => cluster.get('serviceaccount', 'default'))
  await cluster.runPods(pod('one', sleepForever))
})
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]()
  await other?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => cluster)

async function addNode(name: string, podCIDR: string, address: string): Promise<void> {
  await cluster.apply({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    spec: { podCIDR, podCIDRs: [podCIDR] },
  })
  await setAddress(name, address)
}

async function setAddress(name: string, address: string): Promise<void> {
  const patch = JSON.stringify({ status: { addresses: [{ type: 'InternalIP', address }] } })
  await cluster.kubectl(['patch', 'node', name, '--subresource=status', '--type=merge', '--patch', patch])
}

/** What the daemon of the other machine would do. */
async function applyThere(address: string): Promise<void> {
  const { nodeName } = await nodeOfServer()
  const network = {
    ...{ backend: 'vxlan' as const, checksumOffload: false },
    ...{ clusterCidrs: ['10.244.0.0/16'], serviceCidrs: ['10.96.0.0/12'] },
    shortestPrefix: { 4: 24, 6: 64 },
  }
  const { desired, refused } = desiredNetwork(
    network,
    { name: 'other', podCidrs: ['10.244.1.0/24'], addresses: [address] },
    [{ name: nodeName, createdAt: '', podCidrs: ['10.244.0.0/24'], addresses: [addresses[0] ?? ''] }],
  )
  expect(refused).toEqual([])
  await other.exec([program, 'network-apply'], { stdin: JSON.stringify(desired satisfies DesiredNetwork) })
}

async function nodeOfServer(): Promise<{ nodeName: string }> {
  const { spec } = (await cluster.pod('one')) as unknown as { spec: { nodeName: string } }
  return spec
}

async function podReaches(address: string, bytes = 56): Promise<boolean> {
  const line = `ping -c 2 -W 2 -s ${bytes} ${address} >/dev/null && echo yes || echo no`
  return (await cluster.shell('one', line)) === 'yes\n'
}

function untilPodReaches(address: string): Promise<boolean> {
  return cluster.waitFor(`the pod reaches ${address}`, () => podReaches(address))
}

async function ip(...words: string[]): Promise<string> {
  return (await cluster.exec(['ip', ...words], { check: false })).stdout.trim()
}

async function networkPart(): Promise<string | undefined> {
  return (await cluster.status()).parts.find(({ name }) => name === 'network')?.message
}

test('a Node alone has no device, no route, and pods whose packets fit into a device when one comes', async () => {
  expect(await ip('link', 'show', 'k8s-vxlan')).toBe('')
  expect(await ip('route', 'show', 'proto', '75')).toBe('')
  expect(await cluster.shell('one', 'cat /sys/class/net/eth0/mtu')).toBe('1450\n')
})

test('a second Node is led to as soon as it has a range and an address, by pods and by the machine', async () => {
  await applyThere(addresses[1] ?? '')
  await addNode('other', '10.244.1.0/24', addresses[1] ?? '')
  expect(await untilPodReaches(podOfOther)).toBe(true)
  expect(await podReaches(podOfOther, 8000)).toBe(true)
  await cluster.exec([busybox, 'ping', '-c', '1', '-W', '5', podOfOther])
  // And back: the pod's address is its own there.
  const { status } = await cluster.pod('one')
  await other.exec([busybox, 'ping', '-c', '1', '-W', '5', '-I', podOfOther, String(status.podIP)])
  expect(await networkPart()).toBeUndefined()
})

test('pods come to the pods of other nodes with their own addresses, and elsewhere with that of their node', async () => {
  await using _server = serveThere()
  const { status } = await cluster.pod('one')
  expect(await untilPodHears(`${podOfOther} 7000`)).toBe(status.podIP)
  expect(await untilPodHears(`${addresses[1]} 7000`)).toBe(addresses[0])
})

test('Services lead to pods of other nodes: from pods, from the machine, and from outside by the port of a node', async () => {
  await using _server = serveThere()
  const name = 'far'
  const labels = { 'kubernetes.io/service-name': name }
  await cluster.apply(
    {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name } },
      spec: {
        type: 'NodePort',
        clusterIP: '10.96.7.7',
        ports: [{ port: 80, targetPort: 7000, nodePort: 30_777 }],
      },
    },
    {
      ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', metadata: { name, labels } },
      ...{ addressType: 'IPv4', ports: [{ port: 7000 }], endpoints: [{ addresses: [podOfOther] }] },
    },
  )
  const { status } = await cluster.pod('one')
  expect(await untilPodHears('10.96.7.7 80')).toBe(status.podIP)
  // Answers come back by way of who has translated: with the address that leads through the device.
  const ask = (machine: Machine, address: string) =>
    machine.exec(['timeout', '5', 'bash', '-c', `cat </dev/tcp/${address}`])
  expect((await ask(cluster.machine, '10.96.7.7/80')).stdout).toBe('10.244.0.0')
  expect((await ask(other, `${addresses[0]}/30777`)).stdout).toBe('10.244.0.0')
})

/** Tells each who asks his own address. */
function serveThere(): Running {
  const script =
    "require('net').createServer((socket) => socket.end(socket.remoteAddress)).listen(7000, '0.0.0.0')"
  return other.spawn([process.execPath, '-e', script])
}

function untilPodHears(address: string): Promise<string> {
  return cluster.waitFor(
    `${address} answers the pod`,
    async () => (await cluster.shell('one', `nc -w 2 ${address} </dev/null || true`)) || undefined,
  )
}

test.each([
  ['the device', ['ip', 'link', 'delete', 'k8s-vxlan']],
  ['the route', ['ip', 'route', 'delete', '10.244.1.0/24']],
  ['all rules of the firewall', ['nft', 'flush', 'ruleset']],
])('what is lost is there again: %s', async (_, command) => {
  await cluster.exec(command)
  await cluster.waitFor('it leads there again', async () =>
    (await ip('route', 'show', '10.244.1.0/24')).includes('k8s-vxlan'),
  )
  expect(await untilPodReaches(podOfOther)).toBe(true)
})

test('forwarding that somebody has turned off is on again', async () => {
  await cluster.exec(['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/ip_forward'])
  expect(await untilPodReaches(podOfOther)).toBe(true)
  expect(cluster.machine.read('/proc/sys/net/ipv4/ip_forward')).toBe('1\n')
})

test('a Node that claims what is not its own is refused by name, and the others are led to', async () => {
  await addNode('thief', '10.244.1.128/25', '10.89.0.99')
  const part = await cluster.waitFor('the status names it', networkPart)
  expect(part).toContain('thief: its range "10.244.1.128/25" overlaps with that of the Node other')
  expect(await podReaches(podOfOther)).toBe(true)
  await cluster.kubectl(['delete', 'node', 'thief'])
  await cluster.waitFor('the status is well', async () => (await networkPart()) === undefined)
})

test('the changed address of a Node is followed', async () => {
  await other.exec(['bash', '-ec', 'ip address flush dev eth0; ip address add 10.89.0.77/24 dev eth0'])
  await applyThere('10.89.0.77')
  await setAddress('other', '10.89.0.77')
  expect(await untilPodReaches(podOfOther)).toBe(true)
})

test('another backend takes its place after a restart', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  expect(await podReachesWithoutDaemon()).toBe(true)
  await other.exec([program, 'network-apply'], {
    stdin: JSON.stringify({
      ...{ backend: 'host-gw', deviceName: 'k8s-vxlan' },
      peers: [{ name: 'server', routes: [{ range: '10.244.0.0/24', via: addresses[0] }] }],
    }),
  })
  cluster.startDaemon({ flags: ['--network-backend=host-gw'] })
  await cluster.ready()
  expect(await untilPodReaches(podOfOther)).toBe(true)
  expect(await ip('link', 'show', 'k8s-vxlan')).toBe('')
  expect(await ip('route', 'show', 'proto', '75')).toBe('10.244.1.0/24 via 10.89.0.77 dev eth0')
})

/** Pods outlive the daemon, and so does what leads to them. */
async function podReachesWithoutDaemon(): Promise<boolean> {
  return (
    (await cluster.exec([busybox, 'ping', '-c', '1', '-W', '5', podOfOther], { check: false })).exitCode === 0
  )
}

test('the last other Node takes everything along; reset does, too', async () => {
  await cluster.kubectl(['delete', 'node', 'other'])
  await cluster.waitFor('nothing leads there', async () => (await ip('route', 'show', 'proto', '75')) === '')
  await addNode('other', '10.244.1.0/24', '10.89.0.77')
  await cluster.waitFor('it leads there again', async () => (await ip('route', 'show', 'proto', '75')) !== '')
  await cluster.k8s(['stop', '--pods'])
  await cluster.daemon.ended
  const { stdout } = await cluster.k8s(['reset', '--force'])
  expect(stdout).toContain("remove what leads to other nodes' pods")
  expect(await ip('route', 'show', 'proto', '75')).toBe('')
})
