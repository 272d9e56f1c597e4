import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { busybox as busyboxImage, pod, sleepForever, webServer } from './harness/manifests.ts'
import { areApart, isWithin, podRanges } from './harness/pod-ranges.ts'
import { reportFailures } from './harness/report.ts'

// A server and an agent, with a pod on each that tells its name: `near` on the server, `far` on the agent.

const busybox = `${repository}/build/bin/busybox`
const nodePort = 30_888
const localPort = 30_889
const bigBytes = 3_000_000

let lan: Lan
let server: Cluster
let agent: Cluster
let other: Cluster | undefined
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
  await other?.[Symbol.asyncDispose]()
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => agent)

function webPod(name: string, machine: Machine) {
  const line = `mkdir -p /tmp/www && head -c ${bigBytes} /dev/zero >/tmp/www/big && ${webServer}`
  return pod(name, line, { labels: { app: 'web' }, spec: { nodeName: machine.hostName } })
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
    const near = await podRanges(server, server.machine)
    const far = await podRanges(server, agent.machine)
    expect(areApart(near, far)).toBe(true)
    expect(isWithin(near, podAddresses['near'] ?? '')).toBe(true)
    expect(isWithin(far, podAddresses['far'] ?? '')).toBe(true)
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

/** CAP_SYS_RESOURCE, which not every machine has that stands for others. */
const canRaiseLimits =
  ((BigInt(`0x${/^CapBnd:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]}`) >> 24n) & 1n) ===
  1n
/** What Cilium's agent may do, as its chart has it, where it is not privileged. */
const capabilities = [
  ...['CHOWN', 'KILL', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'SYS_MODULE', 'SYS_ADMIN'],
  ...['DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID', 'SYSLOG'],
  ...(canRaiseLimits ? ['SYS_RESOURCE'] : []),
]
/** What of the node Calico's and Cilium's DaemonSets mount, and as what, but for /lib/modules, which would be made on the host. */
const hostPaths: readonly (readonly [path: string, type: string])[] = [
  ['/proc', 'Directory'],
  ['/proc/sys/net', 'Directory'],
  ['/sys/fs', 'DirectoryOrCreate'],
  ['/sys/kernel/security', ''],
  ['/run/xtables.lock', 'FileOrCreate'],
  ['/var/run/calico', 'DirectoryOrCreate'],
  ['/var/run/cilium', 'DirectoryOrCreate'],
  ['/run/cilium/cgroupv2', 'DirectoryOrCreate'],
  ['/var/run/nodeagent', 'DirectoryOrCreate'],
  ['/var/lib/calico', 'DirectoryOrCreate'],
  ['/var/lib/cni/networks', ''],
  ['/var/log/calico/cni', ''],
  ['/var/lib/kubelet/pods', 'DirectoryOrCreate'],
  ['/opt/cni/bin', 'DirectoryOrCreate'],
  ['/etc/cni/net.d', ''],
]
/** The plugin of a network that has nothing to do with ours but for what it is made of: the artifact's, which are found first. */
const foreignPlugin = '#!/bin/sh\nexec "${CNI_PATH%%:*}/bridge"\n'
const foreignNetwork = JSON.stringify({
  ...{ cniVersion: '1.0.0', name: 'foreign' },
  plugins: [
    {
      ...{ type: 'foreign', bridge: 'foreign0', isGateway: true },
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.99.0.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] },
    },
  ],
})
const install = `set -e
grep -q ' /host/sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /host/sys/fs/bpf
printf '%s' "$PLUGIN" >/host/opt/cni/bin/foreign
chmod 755 /host/opt/cni/bin/foreign
nsenter --mount=/host/proc/1/ns/mnt test -x /opt/cni/bin/foreign
printf '%s' "$NETWORK" >/host/etc/cni/net.d/05-foreign.conflist`

/** A network of others, as far as the node is concerned. */
function foreignDaemonSet(hostName: string) {
  const volume = (place: number) => `path-${place}`
  const mounts = (mountPropagation: string) =>
    hostPaths.map(([path], place) => ({
      ...{ name: volume(place), mountPath: `/host${path}` },
      ...(path === '/sys/fs' && { mountPropagation }),
    }))
  const labels = { app: 'foreign' }
  return {
    ...{ apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'foreign', namespace: 'kube-system' } },
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          ...{
            hostNetwork: true,
            priorityClassName: 'system-node-critical',
            terminationGracePeriodSeconds: 1,
          },
          nodeSelector: { 'kubernetes.io/hostname': hostName },
          tolerations: [{ operator: 'Exists' }],
          initContainers: [
            {
              ...{ name: 'install', image: busyboxImage, command: ['sh', '-c', install] },
              env: [
                { name: 'PLUGIN', value: foreignPlugin },
                { name: 'NETWORK', value: foreignNetwork },
              ],
              securityContext: { privileged: true },
              volumeMounts: mounts('Bidirectional'),
            },
          ],
          containers: [
            {
              ...{ name: 'agent', image: busyboxImage, command: ['sh', '-c', sleepForever] },
              securityContext: { capabilities: { add: capabilities, drop: ['ALL'] } },
              volumeMounts: mounts('HostToContainer'),
            },
          ],
          volumes: hostPaths.map(([path, type], place) => ({
            ...{ name: volume(place), hostPath: { path, type } },
          })),
        },
      },
    },
  }
}

test('a node leaves the field to the network of others', async () => {
  const machine = await Machine.create({ name: 'net-other' })
  other = new Cluster(machine, {})
  await lan.join(machine)
  addTestImage(machine)
  // Otherwise that of the host.
  await machine.exec(['mount', '-t', 'tmpfs', 'tmpfs', '/opt'])
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(machine.path('/run/token'), stdout)
  other.startDaemon({
    flags: [
      ...['agent', `--server=https://${addresses[0]}:6443`, '--token-file=/run/token'],
      ...['--disable=network-policy,kube-proxy', '--cni-conf-dir=/etc/cni/net.d'],
    ],
  })
  const hostName = machine.hostName
  const daemon = other
  await daemon.waitFor('it says what it waits for', async () =>
    (await daemon.k8s(['status'], { check: false })).stdout.includes('cni plugin not initialized'),
  )
  await server.apply(foreignDaemonSet(hostName))
  await other.ready()
  await server.wait(['-n', 'kube-system', '--for=condition=Ready', 'pod', '-l', 'app=foreign'])
  await server.runPods(webPod('guest', machine))
  const address = String((await server.pod('guest')).status.podIP)
  expect(address).toMatch(/^10\.99\.0\./)
  expect(await fetchOn(other, `${address}:8080/`)).toBe('guest\n')
  // What the DaemonSet mounted, the machine has.
  expect((await machine.exec(['cat', '/proc/mounts'])).stdout).toContain(' /sys/fs/bpf bpf ')
  const inAgent = ['-n', 'kube-system', 'exec', 'daemonset/foreign', '-c', 'agent', '--']
  expect((await server.kubectl([...inAgent, 'cat', '/proc/mounts'])).stdout).toContain(
    '/host/sys/fs/bpf bpf ',
  )
  // And nothing of it is ours.
  expect((await machine.exec(['ip', '-o', 'link'])).stdout).not.toMatch(/cni0|k8s-vxlan/)
  expect((await machine.exec(['nft', 'list', 'tables'])).stdout).not.toMatch(/k8s|kube-proxy/)
  expect((await machine.exec(['ip', 'route', 'show', 'proto', '75'])).stdout).toBe('')
  const { problems } = await other.status()
  expect(problems).toEqual([])
}, 240_000)
