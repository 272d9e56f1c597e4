import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { pod, service, webServer } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// A server and an agent on machines that have addresses of IPv6 alone.

let lan: Lan
let server: Cluster
let agent: Cluster

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['six-server', 'six-agent'].map((name) => Machine.create({ name })))
  const [first, second] = machines as [Machine, Machine]
  const addresses: string[] = []
  for (const machine of machines) {
    await lan.join(machine)
    addresses.push(await lan.joinSix(machine))
    await machine.exec(['ip', '-4', 'address', 'flush', 'dev', 'eth0'])
    addTestImage(machine)
  }
  server = new Cluster(first, { flags: ['--cluster-cidr=fd00:244::/48', '--service-cidr=fd00:96::/112'] })
  agent = new Cluster(second, {})
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({
    flags: ['agent', `--server=https://[${addresses[0]}]:6443`, '--token-file=/run/token'],
  })
  await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  const on = ({ id }: Machine) => ({
    labels: { app: 'web' },
    spec: { nodeName: id.replace('k8s-test-', '') },
  })
  await server.runPods(pod('near', webServer, on(first)), pod('far', webServer, on(second)))
  await server.apply(service('web', { port: 80, targetPort: 8080 }))
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
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
  expect(await address('far')).toMatch(/^\[fd00:244:0:1::/)
  expect(await untilFetched('near', await address('far'))).toBe('far\n')
  expect(await untilFetched('far', await address('near'))).toBe('near\n')
  for (const name of ['near', 'far']) expect(await untilFetched(name, 'web')).toMatch(/^(near|far)\n$/)
})

test('neither node finds anything wrong', async () => {
  await server.k8s(['status', '--wait', '--timeout=3m'], { timeoutMs: 190_000 })
  for (const cluster of [server, agent]) expect((await cluster.status()).problems).toEqual([])
})
