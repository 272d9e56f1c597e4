import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { pod, webServer } from './harness/manifests.ts'
import { areApart, isWithin, podRanges } from './harness/pod-ranges.ts'
import { reportFailures } from './harness/report.ts'

// A server and an agent with addresses of both families, and a pod on each that tells its name: `near` on the server, `far` on the
// agent, which keeps its rules with iptables, as far as both nodes can.

const busybox = `${repository}/build/bin/busybox`
const hostPort = 8081
const nodePort = 30_888
const clusterCidr = '10.244.0.0/16,fd00:244::/48'
const serviceCidr = '10.96.0.0/12,fd00:96::/112'
const families = [4, 6] as const
const masqueradedAgain = 'the rules of masquerading were gone, and are there again'

let lan: Lan
let server: Cluster
let agent: Cluster
/** Of the machines, by their number, and their families. */
let machineAddresses: Record<4 | 6, string>[]
let podAddresses: Record<string, Record<4 | 6, string>>
let serviceAddresses: Record<4 | 6, string>

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['dual-server', 'dual-agent'].map((name) => Machine.create({ name })))
  const [first, second] = machines as [Machine, Machine]
  machineAddresses = []
  for (const machine of machines) {
    machineAddresses.push({ 4: await lan.join(machine), 6: await lan.joinSix(machine) })
    addTestImage(machine)
  }
  server = new Cluster(first, { flags: ['--config=/run/k8s.yaml'] })
  agent = new Cluster(second, {})
  writeFileSync(
    first.path('/run/k8s.yaml'),
    `cluster-cidr:\n- ${clusterCidr.replace(',', '\n- ')}\nservice-cidr: ${serviceCidr}\n`,
  )
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({
    flags: [
      ...['agent', `--server=https://${machineAddresses[0]?.[4]}:6443`, '--token-file=/run/token'],
      '--kube-proxy-mode=iptables',
    ],
  })
  await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.runPods(webPod('near', first), webPod('far', second))
  await server.apply(webService)
  podAddresses = { near: await podAddressesOf('near'), far: await podAddressesOf('far') }
  const { spec } = await server.get<{ spec: { clusterIPs: string[] } }>('service', 'web')
  serviceAddresses = byFamily(spec.clusterIPs)
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

const webService = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web' },
  spec: {
    type: 'NodePort',
    ipFamilyPolicy: 'PreferDualStack',
    selector: { app: 'web' },
    ports: [{ port: 80, targetPort: 8080, nodePort }],
  },
}

function webPod(name: string, machine: Machine) {
  return pod(name, webServer, {
    labels: { app: 'web' },
    spec: { nodeName: machine.hostName },
    container: { ports: [{ containerPort: 8080, hostPort }] },
  })
}

function byFamily(addresses: readonly string[]): Record<4 | 6, string> {
  const of = (family: 4 | 6) =>
    addresses.find((address) => address.includes(':') === (family === 6)) ?? 'none'
  return { 4: of(4), 6: of(6) }
}

async function podAddressesOf(name: string): Promise<Record<4 | 6, string>> {
  const { status } = await server.get<{ status: { podIPs: { ip: string }[] } }>('pod', name)
  return byFamily(status.podIPs.map(({ ip }) => ip))
}

function url(address: string, port: number): string {
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}/`
}

/** Until it answers: rules of a new Service take a moment. */
function untilFetched(from: 'near' | 'far', address: string, port: number): Promise<string> {
  const line = `timeout 5 wget -q -O - ${url(address, port)} || true`
  return server.waitFor(
    `${from} fetches ${url(address, port)}`,
    async () => (await server.shell(from, line)) || undefined,
  )
}

function untilFetchedOn({ machine }: Cluster, address: string, port: number): Promise<string> {
  return server.waitFor(`${machine.id} fetches ${url(address, port)}`, async () => {
    const command = ['timeout', '5', busybox, 'wget', '-q', '-O', '-', url(address, port)]
    return (await machine.exec(command, { check: false })).stdout || undefined
  })
}

/** What answers on all ways by which a family leads to pods. */
async function reached(family: 4 | 6): Promise<Record<string, string>> {
  const pods = (name: 'near' | 'far') => podAddresses[name]?.[family] ?? ''
  const [first = '', second = ''] = machineAddresses.map((addresses) => addresses[family])
  const service = serviceAddresses[family]
  // What pods send elsewhere has their node's address: nothing out there leads back to them.
  const outside = family === 4 ? '10.89.0.1' : 'fd00:89::1'
  const ping = `ping -${family} -c 1 -W 5 ${outside} >/dev/null && echo yes`
  return {
    far: await untilFetched('near', pods('far'), 8080),
    near: await untilFetched('far', pods('near'), 8080),
    'a Service from near': await untilFetched('near', service, 80),
    'a Service from far': await untilFetched('far', service, 80),
    'hostPort of near': await untilFetchedOn(agent, first, hostPort),
    'hostPort of far': await untilFetchedOn(server, second, hostPort),
    'NodePort of the server': await untilFetchedOn(agent, first, nodePort),
    'NodePort of the agent': await untilFetchedOn(server, second, nodePort),
    'the world from near': await server.shell('near', ping),
    'the world from far': await server.shell('far', ping),
  }
}

const either = expect.stringMatching(/^(near|far)\n$/) as string
const all = {
  far: 'far\n',
  near: 'near\n',
  'a Service from near': either,
  'a Service from far': either,
  'hostPort of near': 'near\n',
  'hostPort of far': 'far\n',
  'NodePort of the server': either,
  'NodePort of the agent': either,
  'the world from near': 'yes\n',
  'the world from far': 'yes\n',
}

test('Nodes and pods have an address of each family, of ranges of their own', async () => {
  interface NodeObject {
    status: { addresses: { type: string; address: string }[] }
  }
  const { items } = await server.get<{ items: NodeObject[] }>('nodes')
  const internal = items.map(({ status }) =>
    byFamily(status.addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address)),
  )
  expect(internal.toSorted((a, b) => (a[4] < b[4] ? -1 : 1))).toEqual(machineAddresses)
  const near = await podRanges(server, server.machine)
  const far = await podRanges(server, agent.machine)
  expect([near, far].map((ranges) => ranges.map(({ first }) => first.family))).toEqual([families, families])
  expect(areApart(near, far)).toBe(true)
  const { near: addressesNear, far: addressesFar } = podAddresses
  for (const family of families) {
    expect(isWithin(near, addressesNear?.[family] ?? '')).toBe(true)
    expect(isWithin(far, addressesFar?.[family] ?? '')).toBe(true)
  }
})

describe.each(families)('by IPv%s', (family) => {
  test('pods reach pods and Services on both nodes, and are reached by ports of the nodes', async () => {
    expect(await reached(family)).toEqual(all)
  })

  test('DNS answers, and tells the address of a Service', async () => {
    const dns = await server.get<{ spec: { clusterIPs: string[] } }>(
      '-n',
      'kube-system',
      'service',
      'kube-dns',
    )
    const at = byFamily(dns.spec.clusterIPs)[family]
    expect(at).toBe(family === 4 ? '10.96.0.10' : 'fd00:96::a')
    for (const name of ['near', 'far'] as const) {
      const record = family === 4 ? 'a' : 'aaaa'
      const answer = await server.shell(name, `nslookup -type=${record} web.default.svc.cluster.local ${at}`)
      expect(answer).toContain(serviceAddresses[family])
    }
  })
})

test('machines go on to heed the routers of their network, and nothing that pods announce', async () => {
  for (const { machine } of [server, agent]) {
    const heeds = async (name: string) =>
      (await machine.exec(['cat', `/proc/sys/net/ipv6/conf/${name}/accept_ra`])).stdout.trim()
    expect(await heeds('eth0')).toBe('2')
    expect(await heeds('cni0')).not.toBe('2')
    expect(await heeds('default')).not.toBe('2')
  }
})

test('neither node finds anything wrong', async () => {
  for (const cluster of [server, agent]) expect((await cluster.status()).problems).toEqual([])
})

test('rules that were flushed are there again, of both families', async () => {
  for (const { machine, daemon } of [server, agent]) {
    await machine.exec(['nft', 'flush', 'ruleset'])
    const isTold = () => daemon.records().some(({ msg }) => msg === masqueradedAgain)
    const limit = { timeoutMs: 120_000 }
    await server.waitFor(`${machine.id} misses them`, () => Promise.resolve(isTold()), limit)
  }
  for (const family of families) expect(await reached(family)).toEqual(all)
}, 240_000)

test('a restart of both keeps all of it, and a cluster of one family is not made of it', async () => {
  for (const cluster of [server, agent]) {
    await cluster.k8s(['stop'])
    await cluster.daemon.ended
  }
  const asked = ['server', '--cluster-cidr=10.244.0.0/16', '--service-cidr=10.96.0.0/12']
  const refused = await server.k8s(asked, { check: false })
  expect(refused.exitCode).toBe(2)
  expect(refused.stderr).toContain('the cluster was created with cluster-cidr 10.244.0.0/16,fd00:244::/48')
  server.startDaemon()
  agent.startDaemon({ flags: ['agent', '--kube-proxy-mode=iptables'] })
  await server.ready()
  await agent.ready()
  for (const family of families) expect(await reached(family)).toEqual(all)
}, 240_000)

test("a machine's address of the second family is followed, when it goes and when it comes", async () => {
  const address = machineAddresses[1]?.[6] ?? ''
  const name = agent.machine.hostName
  const reported = async () => {
    const { status } = await server.get<{ status: { addresses: { address: string }[] } }>('node', name)
    return status.addresses.some((entry) => entry.address === address)
  }
  await agent.exec(['ip', '-6', 'address', 'delete', `${address}/64`, 'dev', 'eth0'])
  await server.waitFor('the Node has it no more', async () => !(await reported()), { timeoutMs: 180_000 })
  await lan.joinSix(agent.machine)
  await server.waitFor('the Node has it again', reported, { timeoutMs: 180_000 })
  await agent.ready()
  expect(await untilFetchedOn(server, address, nodePort)).toMatch(/^(near|far)\n$/)
}, 400_000)

test('a machine whose IPv6 is turned off is refused, before anything of the cluster is fixed', async () => {
  const turn = (value: number) =>
    agent.exec(['sh', '-c', `echo ${value} >/proc/sys/net/ipv6/conf/default/disable_ipv6`])
  await turn(1)
  const check = await agent.k8s(['check'], { check: false })
  const flags = ['--data-dir=/tmp/other', `--cluster-cidr=${clusterCidr}`, `--service-cidr=${serviceCidr}`]
  const start = await agent.k8s(['server', ...flags], { check: false })
  await turn(0)
  expect(check.exitCode).toBe(1)
  expect(check.stdout).toContain('IPv6 is turned off here')
  expect(start.exitCode).toBe(1)
  expect(start.stderr).toContain(
    `cannot give pods addresses of cluster-cidr ${clusterCidr}: IPv6 is turned off here`,
  )
  expect((await agent.exec(['ls', '/tmp/other/cluster.json'], { check: false })).exitCode).toBe(2)
})
