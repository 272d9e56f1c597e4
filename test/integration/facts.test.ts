import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { reportFailures } from './harness/report.ts'

// What is fixed when a cluster, and its node, are created, tried on one that is there.

let cluster: Cluster
let hostName: string

beforeAll(async () => {
  cluster = await startCluster({ name: 'facts', env: { K8S_CLUSTER_CIDR: '10.50.0.0/16' } })
  hostName = (await cluster.exec(['hostname'])).stdout.trim()
  await cluster.daemon.stop()
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

const inDataDir = (name: string) => cluster.machine.path(`${defaultDataDir}/${name}`)

test('is written down for root alone', async () => {
  const record = (name: string) => JSON.parse(readFileSync(inDataDir(name), 'utf8')) as { settings: object }
  expect(record('cluster.json').settings).toEqual({
    'server-mode': 'single',
    'cluster-cidr': '10.50.0.0/16',
    'service-cidr': '10.96.0.0/12',
    'cluster-dns': '10.96.0.10',
    'cluster-domain': 'cluster.local',
  })
  expect(record('node.json').settings).toEqual({ role: 'server', 'node-name': hostName })
  const { stdout } = await cluster.exec(['stat', '-c', '%a %U', `${defaultDataDir}/cluster.json`])
  expect(stdout.trim()).toBe('600 root')
})

test.for([
  ['--cluster-cidr=10.51.0.0/16', '10.50.0.0/16'],
  ['--service-cidr=10.97.0.0/16', '10.96.0.0/12'],
  ['--cluster-dns=10.96.0.53', '10.96.0.10'],
  ['--cluster-domain=other.test', 'cluster.local'],
  ['--node-name=other', 'k8s kubectl delete node'],
  ['--role=datastore', 'the data directory of a server'],
])('a start with %s ends at once, with one line and exit code 2', async ([flag = '', says = '']) => {
  const { exitCode, stdout, stderr } = await cluster.exec(['k8s', flag], { check: false })
  expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' })
  expect(stderr).toMatch(/^k8s: [^\n]+\n$/)
  for (const word of [flag, says, defaultDataDir]) expect(stderr).toContain(word)
})

test('a later start need not say it again, and goes on under the name that the Node has', async () => {
  await cluster.exec(['hostname', 'renamed'])
  // Without the variable that the first start had.
  const daemon = cluster.startDaemon({ env: { K8S_CLUSTER_CIDR: '' } })
  await cluster.ready()
  expect(daemon.log()).toContain(
    `k8s: warning: the host name is renamed now, and the Node keeps its name ${hostName}`,
  )
  const nodes = await cluster.get<{ items: { metadata: { name: string }; spec: { podCIDR: string } }[] }>(
    'nodes',
  )
  expect(nodes.items.map(({ metadata }) => metadata.name)).toEqual([hostName])
  expect(nodes.items[0]?.spec.podCIDR).toBe('10.50.0.0/24')
  await daemon.stop()
})

test('a machine becomes another Node on the way that the message names', async () => {
  cluster.startDaemon()
  await cluster.ready()
  await cluster.k8s(['stop', '--pods'])
  await cluster.exec(['rm', `${defaultDataDir}/node.json`])
  const daemon = cluster.startDaemon()
  await cluster.ready()
  expect(daemon.log()).not.toContain('host name')
  expect(await nodeNames()).toEqual([hostName, 'renamed'].toSorted())
  await cluster.kubectl(['delete', 'node', hostName])
  expect(await nodeNames()).toEqual(['renamed'])
})

async function nodeNames(): Promise<string[]> {
  const { items } = await cluster.get<{ items: { metadata: { name: string } }[] }>('nodes')
  return items.map(({ metadata }) => metadata.name).toSorted()
}
