import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { pod } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

/*
 * A server whose kube-proxy writes nftables and an agent whose one writes iptables, with addresses of both families, and a pod on each
 * that tells its name and who asks: `near` and `far`. Beside them a machine that is in no cluster, which asks.
 */

const busybox = `${repository}/build/bin/busybox`
const ranges = [
  '--cluster-cidr=10.244.0.0/16,fd00:244::/48',
  '--service-cidr=10.96.0.0/12,fd00:96::/112',
  '--kube-proxy-mode=nftables',
]

let lan: Lan
let server: Cluster
let agent: Cluster
let client: Machine
let clientAddress: string
/** Of the machines of the cluster, by their families. */
let addresses: Record<'server' | 'agent', Record<4 | 6, string>>

beforeAll(async () => {
  lan = await Lan.create()
  const names = ['lb-server', 'lb-agent', 'lb-client']
  const machines = await Promise.all(names.map((name) => Machine.create({ name })))
  const [first, second, third] = machines as [Machine, Machine, Machine]
  const joined: Record<4 | 6, string>[] = []
  for (const machine of machines) joined.push({ 4: await lan.join(machine), 6: await lan.joinSix(machine) })
  const [ofServer, ofAgent, ofClient] = joined as [(typeof joined)[0], (typeof joined)[0], (typeof joined)[0]]
  addresses = { server: ofServer, agent: ofAgent }
  client = third
  clientAddress = ofClient[4]
  server = new Cluster(first, { flags: ranges })
  agent = new Cluster(second, {})
  for (const machine of [first, second]) addTestImage(machine)
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({
    flags: [
      ...['agent', `--server=https://${ofServer[4]}:6443`, '--token-file=/run/token'],
      '--kube-proxy-mode=iptables',
    ],
  })
  await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.runPods(askedPod('near', first), askedPod('far', second))
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await client?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

function nodeNameOf(machine: Machine): string {
  return machine.hostName
}

/** Tells its name and who asks. */
function askedPod(name: string, machine: Machine) {
  const script = `printf '#!/bin/sh\\necho\\necho ${name} $REMOTE_ADDR\\n'`
  const line = `mkdir -p /tmp/www/cgi-bin && ${script} >/tmp/www/cgi-bin/who && chmod +x /tmp/www/cgi-bin/who && trap exit TERM && httpd -f -p 8080 -h /tmp/www & wait`
  return pod(name, line, { labels: { app: 'web', pod: name }, spec: { nodeName: nodeNameOf(machine) } })
}

function loadBalancer(name: string, port: number, spec: object = {}) {
  return {
    ...{ apiVersion: 'v1', kind: 'Service', metadata: { name } },
    spec: { type: 'LoadBalancer', selector: { app: 'web' }, ports: [{ port, targetPort: 8080 }], ...spec },
  }
}

interface Balanced {
  readonly status: { readonly loadBalancer: { readonly ingress?: { ip: string; ipMode: string }[] } }
}

async function ingressOf(name: string) {
  return (await server.get<Balanced>('service', name)).status.loadBalancer.ingress
}

async function addressesOf(name: string): Promise<string[]> {
  return ((await ingressOf(name)) ?? []).map(({ ip }) => ip)
}

function untilAddresses(name: string, expected: readonly string[]): Promise<boolean> {
  return server.waitFor(
    `${name} has the addresses ${expected.join()}`,
    async () => (await addressesOf(name)).join() === expected.join(),
  )
}

/** What comes of one question: "near 10.89.0.4", or nothing. */
async function asked(from: Machine, address: string, port: number): Promise<string> {
  const host = address.includes(':') ? `[${address}]` : address
  const command = ['timeout', '5', busybox, 'wget', '-q', '-O', '-', `http://${host}:${port}/cgi-bin/who`]
  const { stdout } = await from.exec(command, { check: false })
  return stdout.trim().replace(/\[(?:::ffff:)?(.*)\]$/, '$1')
}

/** Rules of a new address take a moment. */
function untilAsked(from: Machine, address: string, port: number): Promise<string> {
  return server.waitFor(
    `${from.id} reaches ${address} at port ${port}`,
    async () => (await asked(from, address, port)) || undefined,
  )
}

/** Answers each datagram with its own name and who asks. */
const datagramServer = `
  const socket = require('node:dgram').createSocket('udp6', (_, { address, port }) =>
    socket.send(process.argv[1] + ' ' + address.replace('::ffff:', ''), port, address))
  socket.bind(8080, '::', () => console.log('ready'))`

/** What comes of one datagram within two seconds, from a port that stays the same. */
const datagramClient = `
  const [, address, port] = process.argv
  const socket = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4', (text) => {
    console.log(String(text))
    process.exit()
  })
  socket.bind(40000, () => socket.send('who', Number(port), address))
  setTimeout(() => process.exit(), 2000)`

/** In the network of a pod, whose image has nothing for it; it ends with its machine. */
async function serveDatagrams(cluster: Cluster, pod: string): Promise<void> {
  const sandbox = (await cluster.k8s(['crictl', 'pods', '--quiet', '--name', pod])).stdout.trim()
  const inspect = ['crictl', 'inspectp', '--output=go-template', '--template={{.info.pid}}', sandbox]
  const pid = (await cluster.k8s(inspect)).stdout.trim()
  const command = ['nsenter', '--target', pid, '--net', process.execPath, '-e', datagramServer, pod]
  const { child, ended } = cluster.machine.spawn(command)
  const failed = ended.then(() => Promise.reject(new Error(`nobody answers datagrams in the pod ${pod}`)))
  failed.catch(() => {})
  await Promise.race([once(child.stdout!, 'data'), failed])
}

function untilTold(from: Machine, address: string, port: number, answer: RegExp): Promise<string> {
  return server.waitFor(
    `${from.id} is told ${String(answer)} by a datagram to ${address} at port ${port}`,
    async () => {
      const command = [process.execPath, '-e', datagramClient, address, String(port)]
      const told = (await from.exec(command)).stdout.trim()
      return answer.test(told) && told
    },
  )
}

async function eventsOf(name: string): Promise<string[]> {
  const { items } = await server.get<{
    items: { reason: string; message: string; count: number; involvedObject: { name: string } }[]
  }>('events')
  return items
    .filter(({ involvedObject }) => involvedObject.name === name)
    .map(({ reason, message, count }) => `${count} ${reason}: ${message}`)
}

async function row() {
  return (await server.status()).parts.find(({ name }) => name === 'servicelb')
}

test('without such a Service there is nothing to do', async () => {
  expect(await row()).toEqual({
    ...{ name: 'servicelb', state: 'ready', message: 'there are no Services of type LoadBalancer' },
  })
})

describe('a Service of both families', () => {
  test('has the addresses of all nodes', async () => {
    await server.apply(loadBalancer('web', 80, { ipFamilyPolicy: 'PreferDualStack' }))
    await untilAddresses('web', [
      ...[addresses.agent[4], addresses.server[4]],
      ...[addresses.agent[6], addresses.server[6]],
    ])
    expect((await ingressOf('web'))?.map(({ ipMode }) => ipMode)).toEqual(['VIP', 'VIP', 'VIP', 'VIP'])
  })

  test.each(['server', 'agent'] as const)(
    'answers at them from outside, on nodes and in pods: those of the %s',
    async (node) => {
      for (const family of [4, 6] as const) {
        const address = addresses[node][family]
        for (const machine of [client, server.machine, agent.machine])
          expect(await untilAsked(machine, address, 80)).toMatch(/^(near|far) /)
        const host = family === 6 ? `[${address}]` : address
        for (const name of ['near', 'far'])
          expect(await server.shell(name, `timeout 5 wget -q -O - http://${host}/cgi-bin/who`)).toMatch(
            /^(near|far) /,
          )
      }
    },
  )
})

test('with externalTrafficPolicy Local only nodes with a pod of it answer, which is told who asks', async () => {
  const spec = { externalTrafficPolicy: 'Local', selector: { pod: 'far' } }
  await server.apply(loadBalancer('local', 81, spec))
  await untilAddresses('local', [addresses.agent[4]])
  expect(await untilAsked(client, addresses.agent[4], 81)).toBe(`far ${clientAddress}`)
  await server.kubectl(['label', '--overwrite', 'pod', 'far', 'pod=none'])
  await untilAddresses('local', [])
  await server.kubectl(['label', '--overwrite', 'pod', 'near', 'far', 'pod=far'])
  await untilAddresses('local', [addresses.agent[4], addresses.server[4]])
  expect(await untilAsked(client, addresses.server[4], 81)).toBe(`near ${clientAddress}`)
})

test.each(['server', 'agent'] as const)(
  'only those may ask whom it lets, at one address and without NodePorts: of the %s',
  async (node) => {
    const spec = (range: string) => ({
      ...{ allocateLoadBalancerNodePorts: false, loadBalancerIP: addresses[node][4] },
      loadBalancerSourceRanges: [range],
    })
    await server.apply(loadBalancer('narrow', 82, spec(`${clientAddress}/32`)))
    await untilAddresses('narrow', [addresses[node][4]])
    expect(await untilAsked(client, addresses[node][4], 82)).toMatch(/^(near|far) /)
    const { spec: found } = await server.get<{ spec: { ports: object[] } }>('service', 'narrow')
    expect(found.ports[0]).not.toHaveProperty('nodePort')
    await server.apply(loadBalancer('narrow', 82, spec('192.0.2.0/24')))
    await server.waitFor(
      'nobody else is answered',
      async () => (await asked(client, addresses[node][4], 82)) === '',
    )
  },
)

describe('ports of the nodes', () => {
  test('are not taken from them, and the Service is told so, once', async () => {
    await server.apply(
      loadBalancer('api', 83, {
        ports: [83, 6443].map((port) => ({ name: `p${port}`, port, targetPort: 8080 })),
      }),
      loadBalancer('ssh', 22),
      loadBalancer('node-port', 30_080),
    )
    const told = {
      api: 'port 6443/TCP of the nodes belongs to the API server',
      ssh: 'port 22/TCP of the nodes belongs to SSH',
      'node-port': 'port 30080/TCP of the nodes belongs to the range of NodePorts (30000-32767)',
    }
    for (const [name, text] of Object.entries(told)) {
      const expected = [`1 PortReserved: ${text}, and to no Service: choose another port`]
      await server.waitFor(`${name} has an Event`, async () => (await eventsOf(name)).length > 0)
      expect(await eventsOf(name)).toEqual(expected)
      expect(await addressesOf(name)).toEqual([])
    }
    expect(await asked(client, addresses.server[4], 83)).toBe('')
    expect((await row())?.message).toMatch(
      /^Services: 6; with addresses of nodes: 3; refused: default\/\S+ \(port /,
    )
  })

  test('are those of the older of two Services, and of the other when that one gives them up', async () => {
    await server.apply(loadBalancer('second', 80))
    await server.waitFor('it has an Event', async () => (await eventsOf('second')).length > 0)
    expect(await eventsOf('second')).toEqual([
      '1 PortConflict: port 80/TCP of the nodes is that of the Service default/web: this one gets its addresses when that one gives it up',
    ])
    expect(await addressesOf('second')).toEqual([])
    await server.kubectl(['delete', 'service', 'web'])
    await untilAddresses('second', [addresses.agent[4], addresses.server[4]])
  })
})

describe('UDP', () => {
  const udp = { name: 'udp', protocol: 'UDP', targetPort: 8080 }
  const both = (port: number) => [
    { ...udp, port },
    { name: 'tcp', port, targetPort: 8080 },
  ]

  beforeAll(async () => {
    await serveDatagrams(server, 'near')
    await serveDatagrams(agent, 'far')
  })

  test.each(['server', 'agent'] as const)(
    'of a Service that has TCP on the same port is answered in both families: at the %s',
    async (node) => {
      await server.apply(loadBalancer('both', 87, { ipFamilyPolicy: 'PreferDualStack', ports: both(87) }))
      for (const family of [4, 6] as const) {
        const address = addresses[node][family]
        expect(await untilAsked(client, address, 87)).toMatch(/^(near|far) /)
        for (const machine of [client, server.machine, agent.machine])
          expect(await untilTold(machine, address, 87, /^(near|far) /)).toBeTruthy()
      }
    },
  )

  test('goes to another pod when the first is none of the Service any more, though its client keeps its port', async () => {
    await server.kubectl(['label', 'pod', 'near', 'datagrams=yes'])
    await server.apply(loadBalancer('datagrams', 89, { selector: { datagrams: 'yes' }, ports: both(89) }))
    const nodes = [addresses.server[4], addresses.agent[4]]
    for (const address of nodes) {
      await untilAsked(client, address, 89)
      await untilTold(client, address, 89, /^near /)
    }
    await server.kubectl(['label', 'pod', 'far', 'datagrams=yes'])
    await server.kubectl(['label', 'pod', 'near', 'datagrams-'])
    for (const address of nodes) await untilTold(client, address, 89, /^far /)
    // Where an earlier datagram of the same port has gone by the policy Cluster, later ones do, too.
    const local = { externalTrafficPolicy: 'Local', selector: { datagrams: 'yes' }, ports: both(90) }
    await server.apply(loadBalancer('told', 90, local))
    await untilAddresses('told', [addresses.agent[4]])
    await untilAsked(client, addresses.agent[4], 90)
    const told = await untilTold(client, addresses.agent[4], 90, /^far /)
    expect(told).toBe(`far ${clientAddress}`)
  })

  test('has ports of its own, as SCTP has: only those of the same protocol are in its way', async () => {
    const of = (name: string, protocol: string) =>
      loadBalancer(name, 88, { ports: [{ protocol, port: 88, targetPort: 8080 }] })
    await server.apply(of('one-tcp', 'TCP'), of('one-udp', 'UDP'), of('one-sctp', 'SCTP'))
    for (const name of ['one-tcp', 'one-udp', 'one-sctp'])
      await untilAddresses(name, [addresses.agent[4], addresses.server[4]])
    await server.apply(loadBalancer('two', 88, { ports: both(88) }), loadBalancer('vxlan', 8472))
    await untilAddresses('vxlan', [addresses.agent[4], addresses.server[4]])
    await server.waitFor('it has an Event', async () => (await eventsOf('two')).length > 0)
    expect(await eventsOf('two')).toEqual([
      expect.stringContaining(
        '1 PortConflict: port 88/UDP of the nodes is that of the Service default/one-udp',
      ),
    ])
    await server.apply(loadBalancer('tunnel', 8472, { ports: [{ ...udp, port: 8472 }] }))
    await server.waitFor('it has an Event', async () => (await eventsOf('tunnel')).length > 0)
    expect(await eventsOf('tunnel')).toEqual([
      expect.stringContaining('1 PortReserved: port 8472/UDP of the nodes belongs to'),
    ])
  })
})

test('what others balance is left to them', async () => {
  const other = { loadBalancerClass: 'example.com/other', allocateLoadBalancerNodePorts: false }
  await server.apply(loadBalancer('other', 84, other), loadBalancer('foreign', 85))
  await untilAddresses('foreign', [addresses.agent[4], addresses.server[4]])
  const status = { status: { loadBalancer: { ingress: [{ ip: '192.0.2.9', ipMode: 'VIP' }] } } }
  for (const name of ['other', 'foreign'])
    await server.kubectl(['patch', 'service', name, '--subresource=status', '-p', JSON.stringify(status)])
  await server.waitFor('it is seen', async () =>
    (await row())?.message?.includes('left alone, as others have written their addresses: default/foreign'),
  )
  for (const name of ['other', 'foreign']) expect(await addressesOf(name)).toEqual(['192.0.2.9'])
})

test('a Service that is none of that type any more has no address', async () => {
  await server.apply(loadBalancer('ssh', 86))
  await untilAddresses('ssh', [addresses.agent[4], addresses.server[4]])
  await server.kubectl(['patch', 'service', 'ssh', '-p', '{"spec":{"type":"ClusterIP"}}'])
  expect(await untilAddresses('ssh', [])).toBe(true)
})

test('a node that is left out, or not ready, has no address in it', async () => {
  const both = [addresses.agent[4], addresses.server[4]]
  const name = nodeNameOf(agent.machine)
  const label = 'node.kubernetes.io/exclude-from-external-load-balancers'
  await server.kubectl(['label', 'node', name, `${label}=`])
  await untilAddresses('second', [addresses.server[4]])
  await server.kubectl(['label', 'node', name, `${label}-`])
  await untilAddresses('second', both)
  await agent.k8s(['stop'])
  await agent.daemon.ended
  const conditions = [{ type: 'Ready', status: 'Unknown', reason: 'Test', message: 'no kubelet' }]
  const patch = JSON.stringify({ status: { conditions } })
  await server.kubectl(['patch', 'node', name, '--subresource=status', '-p', patch])
  await untilAddresses('second', [addresses.server[4]])
  agent.startDaemon({ flags: ['agent', '--kube-proxy-mode=iptables'] })
  await agent.ready()
  expect(await untilAddresses('second', both)).toBe(true)
})

test('a restart changes nothing, and without it the addresses are taken back that were its own', async () => {
  const before = await server.get<{ metadata: { resourceVersion: string } }>('service', 'second')
  const again = async (...more: string[]) => {
    await server.k8s(['stop'])
    await server.daemon.ended
    server.startDaemon({ flags: more })
    await server.ready()
  }
  await again()
  await server.waitFor('they are looked at', async () => (await row())?.message?.startsWith('Services: '))
  const after = await server.get<{ metadata: { resourceVersion: string } }>('service', 'second')
  expect(after.metadata.resourceVersion).toBe(before.metadata.resourceVersion)
  await again('--disable=servicelb')
  await untilAddresses('second', [])
  expect(await addressesOf('other')).toEqual(['192.0.2.9'])
  expect(await addressesOf('foreign')).toEqual(['192.0.2.9'])
  expect(await row()).toBeUndefined()
})
