import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { requestInside } from './harness/http.ts'
import { readKubeconfig } from './harness/kubeconfig.ts'
import { listenersOf } from './harness/listeners.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { processesOf } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

const dataDir = defaultDataDir
const secretValue = `secret-${randomBytes(16).toString('hex')}`
const plainValue = `plain-${randomBytes(16).toString('hex')}`

let cluster: Cluster
let node: string

beforeAll(async () => {
  cluster = await startCluster({ name: 'security' })
  node = (await cluster.exec(['hostname'])).stdout.trim()
  await cluster.apply(
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'mounted' },
      stringData: { password: secretValue },
    },
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'unmounted' },
      stringData: { password: 'of nobody here' },
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'plain' }, data: { value: plainValue } },
  )
  await cluster.runPods(
    pod('holder', sleepForever, {
      container: { volumeMounts: [{ name: 'secret', mountPath: '/secret' }] },
      spec: { volumes: [{ name: 'secret', secret: { secretName: 'mounted' } }] },
    }),
  )
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('a Secret reaches its pod, and its bytes are not readable in the database', async () => {
  expect(await cluster.shell('holder', 'cat /secret/password')).toBe(secretValue)
  const directory = cluster.machine.path(`${dataDir}/db`)
  const files = readdirSync(directory)
  expect(files).toContain('state.db')
  const bytes = Buffer.concat(
    files.filter((name) => name.startsWith('state.db')).map((name) => readFileSync(`${directory}/${name}`)),
  )
  // A ConfigMap is found this way, so a Secret would be.
  expect(bytes.includes(plainValue)).toBe(true)
  expect(bytes.includes(secretValue)).toBe(false)
  expect(bytes.includes(Buffer.from(secretValue).toString('base64'))).toBe(false)
})

test('no secret is in a log or in an argument or environment of a process of the cluster', async () => {
  const encryption = cluster.machine.read(`${dataDir}/pki/encryption-config.yaml`)
  const key = /secret: (\S+)/.exec(encryption)?.[1] ?? ''
  expect(Buffer.from(key, 'base64')).toHaveLength(32)
  const token = (await cluster.kubectl(['create', 'token', 'default'])).stdout.trim()
  const words = processesOf(cluster.machine).flatMap(({ pid, arguments: given }) => [
    ...given,
    cluster.machine.read(`/proc/${pid}/environ`),
  ])
  const everything = [cluster.daemon.log(), ...words].join('\n')
  for (const secret of [secretValue, key, token, 'PRIVATE KEY'])
    expect(everything.includes(secret)).toBe(false)
})

test('a projected service account token speaks for its pod', async () => {
  const token = await cluster.shell('holder', 'cat /var/run/secrets/kubernetes.io/serviceaccount/token')
  const { server, identity } = readKubeconfig(cluster.machine.read(`${dataDir}/admin.kubeconfig`))
  const ca = await cluster.shell('holder', 'cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt')
  expect(ca.trim()).toBe(identity.ca.trim())
  const [self] = await requestInside(cluster.machine, [
    { url: `${server}/api/v1/namespaces/default/pods`, headers: { authorization: `Bearer ${token}` }, ca },
  ])
  // Known as the service account, which by itself may nothing.
  expect(self?.status).toBe(403)
  expect(self?.body).toContain('system:serviceaccount:default:default')
})

test('without credentials only the health endpoints answer', async () => {
  const openPaths = ['/healthz', '/livez', '/readyz']
  const closedPaths = [
    '/api',
    '/apis',
    '/version',
    '/metrics',
    '/openapi/v2',
    '/api/v1/nodes',
    '/api/v1/secrets',
    '/nothing',
  ]
  const kubeletPaths = [
    '/pods',
    '/metrics',
    '/configz',
    '/run/default/holder/holder',
    '/containerLogs/default/holder/holder',
  ]
  expect(await statuses('https://127.0.0.1:6443', openPaths)).toEqual(openPaths.map((path) => [path, 200]))
  expect(await statuses('https://127.0.0.1:6443', closedPaths)).toEqual(
    closedPaths.map((path) => [path, 401]),
  )
  expect(await statuses('https://127.0.0.1:10250', kubeletPaths)).toEqual(
    kubeletPaths.map((path) => [path, 401]),
  )
})

test('a token that nobody issued is refused', async () => {
  const [answer] = await requestInside(cluster.machine, [
    { url: 'https://127.0.0.1:6443/api/v1/nodes', headers: { authorization: 'Bearer made-up' } },
  ])
  expect(answer?.status).toBe(401)
})

test('only the API server and the kubelet listen off loopback', () => {
  const open = listenersOf(cluster.machine).filter(({ isLoopback }) => !isLoopback)
  expect(open.map(({ protocol, port }) => `${protocol} ${port}`).sort()).toEqual(['tcp 10250', 'tcp 6443'])
})

test('keys, kubeconfigs, the database and sockets are for root alone', async () => {
  // What containers and payloads are made of has modes of its own.
  const pruned = ['containerd', 'data', 'run/containerd/io.containerd*'].flatMap((path) => [
    '-path',
    `${dataDir}/${path}`,
    '-prune',
    '-o',
  ])
  const found = await cluster.exec([
    'find',
    dataDir,
    ...pruned,
    '(',
    '-type',
    'f',
    '-o',
    '-type',
    's',
    ')',
    '-printf',
    '%m %y %p\\n',
  ])
  const files = found.stdout
    .trim()
    .split('\n')
    .map((line) => {
      const [, mode = '', type, path = ''] = /^(\d+) (.) (.*)$/.exec(line) ?? []
      return { mode, type, path }
    })
  const isPrivate = ({ type, path }: (typeof files)[number]) =>
    type === 's' ||
    /\.kubeconfig$|\/state\.db|encryption/.test(path) ||
    cluster.machine.read(path).includes('PRIVATE KEY')
  const privateFiles = files.filter(isPrivate)
  expect(privateFiles.length).toBeGreaterThan(15)
  expect(privateFiles.map(({ path }) => path)).toEqual(
    expect.arrayContaining([
      `${dataDir}/admin.kubeconfig`,
      `${dataDir}/db/state.db`,
      `${dataDir}/run/datastore.sock`,
      `${dataDir}/run/control.sock`,
    ]),
  )
  // containerd makes its own sockets 0660, for root's group.
  const isOpen = ({ mode, path }: (typeof files)[number]) =>
    !['600', '700'].includes(mode) && !(path.includes('/run/containerd/') && mode === '660')
  expect(privateFiles.filter(isOpen)).toEqual([])
})

test('another user of the machine reaches neither sockets nor the database', async () => {
  const paths = [
    'run/datastore.sock',
    'run/control.sock',
    'run/containerd/containerd.sock',
    'db/state.db',
    'admin.kubeconfig',
  ]
  const asNobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
  const isReached = (path: string) =>
    cluster.exec([...asNobody, 'test', '-r', `${dataDir}/${path}`, '-o', '-w', `${dataDir}/${path}`], {
      check: false,
    })
  const exitCodes = await Promise.all(paths.map(async (path) => [path, (await isReached(path)).exitCode]))
  expect(exitCodes).toEqual(paths.map((path) => [path, 1]))
})

test('each component has its own, limited rights', async () => {
  const names = readdirSync(cluster.machine.path(`${dataDir}/kubeconfig`))
  expect(names.length).toBeGreaterThanOrEqual(4)
  const mayAll = async (name: string) => {
    const question = [`--kubeconfig=${dataDir}/kubeconfig/${name}`, 'auth', 'can-i', '*', '*']
    return (await cluster.kubectl(question, { check: false })).stdout.trim()
  }
  expect(await Promise.all(names.map(mayAll))).toEqual(names.map(() => 'no'))
})

test("the kubelet reads its own pods' Secrets and no others (Node authorizer)", async () => {
  const kubelet = kubeletKubectl()
  expect((await kubelet(['get', 'secret', 'mounted', '-o', 'name'])).stdout.trim()).toBe('secret/mounted')
  const other = await kubelet(['get', 'secret', 'unmounted'], false)
  expect(other.exitCode).toBe(1)
  expect(other.stderr).toContain('Forbidden')
})

test('the kubelet changes its own Node only, and not the labels kept from it (NodeRestriction)', async () => {
  await cluster.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'another' } })
  const kubelet = kubeletKubectl()
  const refusals = [
    ['label', 'node', 'another', 'a=b'],
    ['label', 'node', node, 'node-restriction.kubernetes.io/a=b'],
    ['taint', 'node', node, 'a=b:NoSchedule'],
  ]
  for (const refusal of refusals) {
    const { exitCode, stderr } = await kubelet(refusal, false)
    expect([refusal, exitCode, stderr]).toEqual([
      refusal,
      1,
      expect.stringMatching(/is forbidden|not allowed/),
    ])
  }
  await kubelet(['label', 'node', node, 'own-label=allowed'])
  await cluster.kubectl(['delete', 'node', 'another'])
})

/** Each path with the status of an answer to nobody in particular. */
async function statuses(server: string, paths: readonly string[]): Promise<[string, number | undefined][]> {
  const answers = await requestInside(
    cluster.machine,
    paths.map((path) => ({ url: `${server}${path}` })),
  )
  return paths.map((path, index) => [path, answers[index]?.status])
}

function kubeletKubectl() {
  const kubeconfig = `--kubeconfig=${dataDir}/kubeconfig/kubelet.kubeconfig`
  return (arguments_: readonly string[], check = true) =>
    cluster.kubectl([kubeconfig, ...arguments_], { check })
}
