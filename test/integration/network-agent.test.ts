import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { pod, webServer } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// A server and an agent, with a pod on each that tells its name: `near` on the server, `far` on the agent.

const busybox = `${repository}/build/bin/busybox`
const nodePort = 30_888
const localPort = 30_889
const bigBytes = 3_000_000

let lan: Lan
let server: Cluster
let agent: Cluster
let addresses: string[]
let podAddresses: Record<string, string>

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['net-server', 'net-agent'].map((name) => Machine.create({ name })))
  const [first, second] = machines as [Machine, Machine]
  server = new Cluster(first, {})
  agent = new Cluster(second, {})
  addresses = [await lan.join(first), await lan.join(second)]
  for (const machine of machines) addTestImage(machine)
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({ flags: ['agent', `--server=https://${addresses[0]}:6443`, '--token-file=/run/token'] })
  await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.runPods(webPod('near', first), webPod('far', second))
  await server.apply(webService('web', nodePort, 'Cluster'), webService('local', localPort, 'Local'))
  podAddresses = {}
  for (const name of ['near', 'far']) podAddresses[name] = String((await server.pod(name)).status.podIP)
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => agent)

function webPod(name: string, machine: Machine) {
  const line = `mkdir -p /tmp/www && head -c ${bigBytes} /dev/zero >/tmp/www/big && ${webServer}`
  return pod(name, line, { labels: { app: 'web' }, spec: { nodeName: machine.id.replace('k8s-test-', '') } })
}

function webService(name: string, port: number, externalTrafficPolicy: string) {
  const ports = [{ port: 80, targetPort: 8080, nodePort: port }]
  const spec = { type: 'NodePort', externalTrafficPolicy, selector: { app: 'web' }, ports }
  return { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec }
}

/** Until it answers: rules of a new Service take a moment. */
function untilFetched(from: 'near' | 'far', url: string): Promise<string> {
  return server.waitFor(
    `${from} fetches ${url}`,
    async () => (await server.shell(from, `timeout 5 wget -q -O - http://${url} || true`)) || undefined,
  )
}

async function fetchOn({ machine }: Cluster, url: string): Promise<string> {
  return (await machine.exec(['timeout', '10', busybox, 'wget', '-q', '-O', '-', `http://${url}`])).stdout
}

/** Which pods answer to many questions. */
async function answering(ask: () => Promise<string>): Promise<string[]> {
  const names = new Set<string>()
  for (let left = 40; left > 0 && names.size < 2; left--) names.add((await ask()).trim())
  return [...names].toSorted()
}

async function networkParts(): Promise<unknown[]> {
  const states = await Promise.all([server.status(), agent.status()])
  return states.flatMap(({ parts }) => parts.filter(({ name }) => name === 'network' || name === 'nodes'))
}

describe('pods of different nodes', () => {
  test('have addresses of different ranges, and packets that fit', async () => {
    expect(Object.values(podAddresses).map((address) => address.split('.').slice(0, 3).join('.'))).toEqual([
      '10.244.0',
      '10.244.1',
    ])
    for (const name of ['near', 'far'])
      expect(await server.shell(name, 'cat /sys/class/net/eth0/mtu')).toBe('1450\n')
  })

  test.each([
    ['near', 'far'],
    ['far', 'near'],
  ] as const)('reach each other with packets of any size: from %s to %s', async (from, to) => {
    expect(await untilFetched(from, `${podAddresses[to]}:8080/`)).toBe(`${to}\n`)
    const count = `timeout 60 wget -q -O - http://${podAddresses[to]}:8080/big | wc -c`
    expect(await server.shell(from, count)).toBe(`${bigBytes}\n`)
    expect(
      await server.shell(from, `ping -c 2 -W 5 -s 8000 ${podAddresses[to]} >/dev/null && echo yes`),
    ).toBe('yes\n')
  })

  test('are reached by the machines, too', async () => {
    for (const name of ['near', 'far']) {
      expect(await fetchOn(server, `${podAddresses[name]}:8080/`)).toBe(`${name}\n`)
      expect(await fetchOn(agent, `${podAddresses[name]}:8080/`)).toBe(`${name}\n`)
    }
  })
})

describe('Services with pods on both nodes', () => {
  test.each(['near', 'far'] as const)('lead to all from a pod, found by their name: %s', async (from) => {
    await untilFetched(from, 'web/')
    expect(await answering(() => untilFetched(from, 'web/'))).toEqual(['far', 'near'])
  })

  test('lead to all from each machine', async () => {
    const { spec } = await server.get<{ spec: { clusterIP: string } }>('service', 'web')
    for (const cluster of [server, agent])
      expect(await answering(() => fetchOn(cluster, `${spec.clusterIP}/`))).toEqual(['far', 'near'])
  })

  test('lead to all from outside, by the port of either node', async () => {
    expect(await answering(() => fetchOn(agent, `${addresses[0]}:${nodePort}/`))).toEqual(['far', 'near'])
    expect(await answering(() => fetchOn(server, `${addresses[1]}:${nodePort}/`))).toEqual(['far', 'near'])
  })

  test('with externalTrafficPolicy Local lead to the pod of the node that was asked', async () => {
    expect(await answering(() => fetchOn(agent, `${addresses[0]}:${localPort}/`))).toEqual(['near'])
    expect(await answering(() => fetchOn(server, `${addresses[1]}:${localPort}/`))).toEqual(['far'])
  })
})

test('DNS answers pods of both nodes', async () => {
  for (const name of ['near', 'far'])
    expect(await server.shell(name, 'nslookup kubernetes.default.svc.cluster.local')).toContain('10.96.0.1')
})

test('what docs/networking.md shows is there to be seen', async () => {
  const asked = [
    '-n',
    'kube-system',
    'get',
    'configmap',
    'kubeadm-config',
    '-o',
    'jsonpath={.data.network-backend}',
  ]
  expect((await server.kubectl(asked)).stdout).toBe('vxlan')
  const see = async (...command: string[]) => (await agent.exec(command)).stdout
  expect(await see('ip', 'route', 'show', 'proto', '75')).toContain(
    '10.244.0.0/24 via 10.244.0.0 dev k8s-vxlan',
  )
  expect(await see('ip', '-d', 'link', 'show', 'k8s-vxlan')).toContain('mtu 1450')
  expect(await see('ip', '-s', 'link', 'show', 'k8s-vxlan')).toContain('RX')
  expect(await see('ip', 'neighbour', 'show', 'dev', 'k8s-vxlan')).toContain('10.244.0.0 lladdr')
  expect(await see('bridge', 'fdb', 'show', 'dev', 'k8s-vxlan')).toContain(`dst ${addresses[0]}`)
})

test('neither node finds anything wrong', async () => {
  expect(await networkParts()).toEqual([])
})

test('pods reach each other while no daemon runs, and after it has come back', async () => {
  await agent.k8s(['stop'])
  await agent.daemon.ended
  expect(await fetchOn(server, `${podAddresses['far']}:8080/`)).toBe('far\n')
  agent.startDaemon({ flags: ['agent'] })
  await agent.ready()
  expect(await untilFetched('near', `${podAddresses['far']}:8080/`)).toBe('far\n')
})

test('a network that was cut and healed leads to pods again', async () => {
  await lan.cut(agent.machine)
  const ask = `timeout 2 wget -q -O - http://${podAddresses['far']}:8080/ || echo none`
  expect(await server.shell('near', ask)).toBe('none\n')
  await lan.heal(agent.machine)
  expect(await untilFetched('near', `${podAddresses['far']}:8080/`)).toBe('far\n')
})

test('what the servers say of the backend, agents do', async () => {
  await server.k8s(['stop'])
  await server.daemon.ended
  server.startDaemon({ flags: ['--network-backend=host-gw'] })
  await server.ready()
  for (const { machine } of [server, agent]) {
    await server.waitFor(
      'the routes lead over the network itself',
      async () => {
        const { stdout } = await machine.exec(['ip', 'route', 'show', 'proto', '75'])
        return stdout.includes('dev eth0')
      },
      { timeoutMs: 150_000 },
    )
  }
  expect(await untilFetched('near', `${podAddresses['far']}:8080/`)).toBe('far\n')
  expect(await untilFetched('far', `${podAddresses['near']}:8080/`)).toBe('near\n')
  expect(await networkParts()).toEqual([])
}, 240_000)
