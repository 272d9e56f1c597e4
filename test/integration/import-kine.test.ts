import { existsSync, mkdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PkiFiles, preparePki } from '../../src/pki/pki.ts'
import { addTestImage, Cluster, defaultDataDir } from './harness/cluster.ts'
import { artifact, Machine, repository, type Running } from './harness/machine.ts'
import { deployment, type Pod, pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'
import { waitFor } from './harness/wait.ts'

const kine = `${repository}/build/peers/kine`
const kineDatabase = '/tmp/kine/state.db'
const formerPki = '/tmp/former-pki'
const nodeAddress = '10.89.0.2'
const password = 'encrypted by the former cluster'

interface Kept {
  readonly metadata: { readonly uid: string; readonly resourceVersion: string; readonly generation?: number }
  readonly data?: Readonly<Record<string, string>>
}

let cluster: Cluster
/** What the former API server said last. */
let former: { configMap: Kept; secret: Kept; deployment: Kept; revision: number }

/** A control plane on kine writes what is imported; the cluster is not started yet. */
beforeAll(async () => {
  if (!existsSync(kine)) throw new Error(`${kine} is missing: make peers`)
  const machine = await Machine.create({ name: 'import-kine', program: artifact })
  cluster = new Cluster(machine, {})
  await writeWithKine(machine)
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('encrypted Secrets want the keys of the former cluster', async () => {
  const { exitCode, stderr } = await cluster.k8s(['db', 'import-kine', kineDatabase], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toMatch(/encrypted[^\n]*--encryption-config/)
  expect(existsSync(cluster.machine.path(`${defaultDataDir}/db/state.db`))).toBe(false)
})

test('a cluster starts on what a kine had', async () => {
  const { stdout } = await cluster.k8s([
    ...['db', 'import-kine', kineDatabase],
    `--encryption-config=${formerPki}/encryption-config.yaml`,
  ])
  expect(stdout).toMatch(/^\/var\/lib\/k8s\/db\/state\.db has \d+ keys and \d+ leases at revision \d+\.$/m)
  expect((await cluster.k8s(['db', 'check'])).stdout).toMatch(/ is sound\.\n$/)
  addTestImage(cluster.machine)
  cluster.startDaemon()
  await cluster.ready()
})

test('its objects are there, with their identities and revisions', async () => {
  expect(await cluster.get('configmap', 'kept')).toEqual(former.configMap)
  expect(await cluster.get('secret', 'password')).toEqual(former.secret)
  expect((await cluster.get<Kept>('deployment', 'web')).metadata.uid).toBe(former.deployment.metadata.uid)
  const { exitCode } = await cluster.kubectl(['get', 'configmap', 'deleted'], { check: false })
  expect(exitCode).toBe(1)
})

test('it goes on: the deployment gets its pod, and new objects are made', async () => {
  await cluster.wait(['--for=condition=Available', 'deployment/web'])
  const { items } = await cluster.get<{ items: Pod[] }>('pods', '--selector=app=web')
  expect(await cluster.shell(items[0]?.metadata.name ?? '', 'echo runs')).toBe('runs\n')
  await cluster.waitFor('pods are admitted', () => cluster.get('serviceaccount', 'default'))
  await cluster.runPods(pod('new', sleepForever))
  await cluster.kubectl(['patch', 'secret/password', '--patch={"stringData":{"more":"by this one"}}'])
  const secret = await cluster.get<Kept>('secret', 'password')
  expect(secret.data).toEqual({ ...former.secret.data, more: Buffer.from('by this one').toString('base64') })
  expect(Number(secret.metadata.resourceVersion)).toBeGreaterThan(former.revision)
})

async function writeWithKine(machine: Machine): Promise<void> {
  for (const directory of [formerPki, '/tmp/kine']) mkdirSync(machine.path(directory))
  const written = await preparePki({
    ...{ dir: machine.path(formerPki), nodeName: 'former', nodeIp: nodeAddress },
    ...{ advertiseAddress: nodeAddress, bindAddress: '0.0.0.0', tlsSan: [] },
    ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local' },
  })
  const inside = (path: string) => path.slice(machine.path('').length)
  // It ends by SIGKILL, so that its WAL is taken over, too.
  await using _kine = machine.spawn([
    kine,
    `--endpoint=sqlite://${kineDatabase}?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate`,
    '--listen-address=tcp://127.0.0.1:2379',
  ])
  await using apiserver = startApiServer(machine, written, inside)
  const { authorities, leaves } = written
  const client = [
    ...['--server=https://127.0.0.1:6443', '--kubeconfig=/dev/null'],
    `--certificate-authority=${inside(authorities.server.certFile)}`,
    `--client-certificate=${inside(leaves['admin-client'].certFile)}`,
    `--client-key=${inside(leaves['admin-client'].keyFile)}`,
  ]
  const kubectl = async (...given: string[]) => (await cluster.kubectl([...client, ...given])).stdout
  await waitFor('the API server is ready', async () => (await kubectl('get', '--raw', '/readyz')) === 'ok', {
    timeoutMs: 120_000,
    giveUp: () => (apiserver.child.exitCode === null ? undefined : new Error('kube-apiserver has ended')),
  })
  await waitFor('its namespace is there', () => kubectl('get', 'namespace', 'default'))
  const manifests = [
    deployment('web', sleepForever),
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { value: 'first' } },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'deleted' } },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'password' }, stringData: { password } },
  ]
  await cluster.kubectl([...client, 'create', '-f', '-'], {
    stdin: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests }),
  })
  await kubectl('patch', 'configmap/kept', '--patch={"data":{"value":"second"}}')
  const get = async (...what: string[]) => JSON.parse(await kubectl('get', ...what, '-o', 'json')) as Kept
  await kubectl('delete', 'configmap/deleted')
  const list = JSON.parse(await kubectl('get', '--raw', '/api/v1/namespaces/default/configmaps')) as Kept
  former = {
    configMap: await get('configmap', 'kept'),
    secret: await get('secret', 'password'),
    deployment: await get('deployment', 'web'),
    revision: Number(list.metadata.resourceVersion),
  }
}

function startApiServer(machine: Machine, pki: PkiFiles, inside: (path: string) => string): Running {
  const { authorities, leaves } = pki
  return machine.spawn(
    [
      ...[`${repository}/build/payload/bin/kube-apiserver`, '--etcd-servers=http://127.0.0.1:2379'],
      ...[`--advertise-address=${nodeAddress}`, '--authorization-mode=Node,RBAC', '--secure-port=6443'],
      `--client-ca-file=${inside(authorities.client.certFile)}`,
      `--encryption-provider-config=${inside(pki.encryptionConfigFile)}`,
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--service-account-key-file=${inside(pki.serviceAccountPublicKeyFile)}`,
      `--service-account-signing-key-file=${inside(pki.serviceAccountKeyFile)}`,
      '--service-cluster-ip-range=10.96.0.0/12',
      `--tls-cert-file=${inside(leaves.apiserver.certFile)}`,
      `--tls-private-key-file=${inside(leaves.apiserver.keyFile)}`,
    ],
    { stdio: ['ignore', 'ignore', 'ignore'] },
  )
}
