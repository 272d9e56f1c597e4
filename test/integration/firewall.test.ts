import { writeFileSync, readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Cluster, startCluster } from './harness/cluster.ts'
import { deployment, pod, service, sleepForever, webServer } from './harness/manifests.ts'
import { type MachineProcess, processesOf } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

/** machine.sh's address of the node, and the gateway that its default route names. */
const node = '10.89.0.2'
const outside = '10.89.0.1'
const hostPort = 18_080
const outsidePort = 19_000
/** Two thorough looks, a start of kube-proxy, and a loaded machine. */
const healLimitMs = 150_000

/** As a firewall that is loaded anew does, and then forwards nothing by itself. */
const modes = [
  {
    mode: 'nftables',
    flush: 'nft flush ruleset; iptables -P FORWARD DROP',
    emptied: [['kube-proxy', 'cni_hostport', 'k8s_masquerade']],
  },
  {
    mode: 'iptables',
    flush:
      'iptables -t nat -F; iptables -F; iptables -t nat -X; nft flush ruleset 2>/dev/null; iptables -P FORWARD DROP',
    // Of iptables there are no tables that could be empty.
    emptied: [],
  },
] satisfies { mode: string; flush: string; emptied: string[][] }[]

describe.each(modes)('in mode $mode', ({ mode, flush, emptied }) => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await startCluster({ name: `firewall-${mode}`, flags: [`--kube-proxy-mode=${mode}`] })
    await cluster.apply(deployment('web', webServer), service('web', { port: 80, targetPort: 8080 }))
    await cluster.runPods(
      pod('keeper', sleepForever),
      pod('porter', webServer, { container: { ports: [{ containerPort: 8080, hostPort }] } }),
    )
    await cluster.wait(['--for=condition=Available', 'deployment/web'])
    await cluster.wait(['--for=condition=Available', '-n', 'kube-system', 'deployment/coredns'])
    await openOutside(cluster)
  })
  afterAll(() => cluster?.[Symbol.asyncDispose]())
  reportFailures(() => cluster)

  const services = async () =>
    (await cluster.shell('keeper', 'timeout 5 wget -q -O - http://web/')).startsWith('web-')
  const masquerade = async () =>
    (await cluster.shell('keeper', `timeout 5 wget -q -O - http://${outside}:${outsidePort}/`)) ===
    'outside\n'
  const ports = async () => {
    const fetched = `ip netns exec outside timeout 5 wget -q -O - http://${node}:${hostPort}/`
    return (await cluster.exec(['sh', '-c', fetched])).stdout === 'porter\n'
  }
  const untilWorking = async () => {
    const limit = { timeoutMs: healLimitMs }
    await cluster.waitFor('pods reach the world', masquerade, limit)
    await cluster.waitFor('Services and DNS work', services, limit)
    await cluster.waitFor('the hostPort works', ports, limit)
  }
  const pods = () => processesOf(cluster.machine).filter(isOfPod)

  test('Services, masquerading and a hostPort work', async () => {
    await untilWorking()
    expect(await ports()).toBe(true)
  })

  test('they work again after all rules were flushed, with the same pods', async () => {
    const before = pods()
    await cluster.exec(['sh', '-c', flush])
    expect(await ports().catch(() => false)).toBe(false)
    await untilWorking()
    expect(pods()).toEqual(before)
  })

  test('they work again when all was flushed while no daemon ran', async () => {
    const before = pods()
    await cluster.k8s(['stop'])
    await cluster.daemon.ended
    await cluster.exec(['sh', '-c', flush])
    cluster.startDaemon()
    await cluster.ready()
    await untilWorking()
    expect(pods()).toEqual(before)
  })

  test.each(emptied)('emptied tables are found, too: %s, %s and %s', async (...tables) => {
    for (const table of tables) await cluster.exec(['nft', 'flush', 'table', 'ip', table])
    await untilWorking()
    const { stdout } = await cluster.exec(['nft', 'list', 'table', 'ip', 'k8s_masquerade'])
    expect(stdout).toContain('masquerade')
  })

  test('what nothing but a new pod can heal is told by name', async () => {
    const results = '/var/lib/cni/results'
    const name = readdirSync(cluster.machine.path(results)).find((candidate) =>
      cluster.machine.read(`${results}/${candidate}`).includes('"porter"'),
    )
    const { config: _lost, ...rest } = JSON.parse(cluster.machine.read(`${results}/${name}`)) as {
      config: string
    }
    writeFileSync(cluster.machine.path(`${results}/${name}`), JSON.stringify(rest))
    await cluster.exec(['sh', '-c', flush])
    const part = await cluster.waitFor(
      'the pod is named',
      async () => (await cluster.status()).parts.find((candidate) => candidate.name === 'port mappings'),
      { timeoutMs: healLimitMs },
    )
    expect(part).toMatchObject({
      state: 'degraded',
      message: 'gone of default/porter: delete these pods, new ones get them',
    })
    await cluster.kubectl(['delete', 'pod', 'porter'])
    await cluster.waitFor(
      'nothing is told any more',
      async () => !(await cluster.status()).parts.some((candidate) => candidate.name === 'port mappings'),
      { timeoutMs: healLimitMs },
    )
  })
})

/** A machine beyond the node's default route, which has no way back to pods. */
async function openOutside(cluster: Cluster): Promise<void> {
  const lines = [
    'ip netns add outside',
    'ip link set nowhere netns outside',
    `ip -n outside address add ${outside}/24 dev nowhere`,
    'ip -n outside link set nowhere up',
    'mkdir -p /tmp/outside && echo outside >/tmp/outside/index.html',
    `ip netns exec outside busybox httpd -p ${outsidePort} -h /tmp/outside`,
  ]
  await cluster.exec(['sh', '-ec', lines.join('\n')])
}

function isOfPod({ arguments: words }: MachineProcess): boolean {
  return words.at(-1) === sleepForever || words.at(-1) === webServer
}
