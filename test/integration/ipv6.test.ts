import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { nodesWithFigures } from './harness/figures.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { pod, service, webServer } from './harness/manifests.ts'
import { areApart, isWithin, podRanges } from './harness/pod-ranges.ts'
import { reportFailures } from './harness/report.ts'

// Two servers with an etcd of their own, and an agent, on machines that have addresses of IPv6 alone.

let lan: Lan
let server: Cluster
let second: Cluster
let agent: Cluster

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(
    ['six-server', 'six-agent', 'six-second'].map((name) => Machine.create({ name })),
  )
  const [first, remote, other] = machines as [Machine, Machine, Machine]
  const addresses: string[] = []
  for (const machine of machines) {
    await lan.join(machine)
    addresses.push(await lan.joinSix(machine))
    await machine.exec(['ip', '-4', 'address', 'flush', 'dev', 'eth0'])
    addTestImage(machine)
  }
  const ranges = ['--cluster-cidr=fd00:244::/48', '--service-cidr=fd00:96::/112']
  server = new Cluster(first, { flags: ['--server-mode=ha', '--cluster-init', ...ranges] })
  second = new Cluster(other, { flags: ['--server-mode=ha'] })
  agent = new Cluster(remote, { flags: ['agent'] })
  server.startDaemon()
  await server.ready()
  const join = async (cluster: Cluster, role: 'agent' | 'server') => {
    const { stdout } = await server.k8s(['token', 'create', `--role=${role}`])
    writeFileSync(cluster.machine.path('/run/token'), stdout)
    cluster.startDaemon({ flags: [`--server=https://[${addresses[0]}]:6443`, '--token-file=/run/token'] })
    await cluster.ready()
  }
  await join(agent, 'agent')
  await join(second, 'server')
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  const on = ({ hostName }: Machine) => ({
    labels: { app: 'web' },
    spec: { nodeName: hostName },
  })
  await server.runPods(pod('near', webServer, on(first)), pod('far', webServer, on(remote)))
  await server.apply(service('web', { port: 80, targetPort: 8080 }))
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await second?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

/** Until it answers: rules of a new Service take a moment. */
function untilFetched(from: string, host: string): Promise<string> {
  const line = `timeout 5 wget -q -O - http://${host}/ || true`
  return server.waitFor(`${from} fetches ${host}`, async () => (await server.shell(from, line)) || undefined)
}

test('pods of both nodes reach each other, Services by their names, and are reached by the API server', async () => {
  const address = async (name: string) => `[${(await server.pod(name)).status.podIP}]:8080`
  const ranges = await podRanges(server, agent.machine)
  expect(areApart(ranges, await podRanges(server, server.machine))).toBe(true)
  expect(isWithin(ranges, String((await server.pod('far')).status.podIP))).toBe(true)
  expect(await untilFetched('near', await address('far'))).toBe('far\n')
  expect(await untilFetched('far', await address('near'))).toBe('near\n')
  for (const name of ['near', 'far']) expect(await untilFetched(name, 'web')).toMatch(/^(near|far)\n$/)
})

test('both servers have a member that votes, and no node finds anything wrong', async () => {
  await server.waitFor('both vote', async () => {
    const { stdout } = await second.k8s(['etcd', 'members', '-o', 'json'])
    const { members } = JSON.parse(stdout) as { members: { role: string; peerUrls: string[] }[] }
    for (const { peerUrls } of members)
      expect(peerUrls).toEqual([expect.stringMatching(/^https:\/\/\[fd00:/)])
    return (
      members
        .map(({ role }) => role)
        .sort()
        .join() === 'follower,leader'
    )
  })
  await server.k8s(['status', '--wait', '--timeout=3m'], { timeoutMs: 190_000 })
  for (const cluster of [server, second, agent]) expect((await cluster.status()).problems).toEqual([])
})

test('kubectl top tells of all nodes', async () => {
  expect(await nodesWithFigures(server, 3)).toHaveLength(3)
})
