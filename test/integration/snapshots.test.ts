import { existsSync, readdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { repository } from './harness/machine.ts'
import { deployment, type Pod, pod, sleepForever } from './harness/manifests.ts'
import { processesOf } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

/** In memory, which a reset of the node does not reach. */
const elsewhere = '/tmp/elsewhere'
const secretFile = '/tmp/snapshot-secret'
const dieAtStep = `${repository}/test/fixtures/die-at-step.ts`
const formerKubeconfig = '/tmp/former.kubeconfig'
const password = 'of the time of the snapshot'
/** What a pod runs that is made after the snapshot; told from others by its text. */
const sleepLater = `${sleepForever} # later`

let cluster: Cluster
let snapshot: string
let seenRevision: number

beforeAll(async () => {
  cluster = await startCluster({ name: 'snapshots' })
  await cluster.apply(
    deployment('web', sleepForever),
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { value: 'first' } },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'password' }, stringData: { password } },
  )
  await cluster.wait(['--for=condition=Available', 'deployment/web'])
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('snapshots are taken while the cluster runs, sealed and not', async () => {
  snapshot = await save('before-changes')
  await cluster.exec(['sh', '-c', `head -c 32 /dev/urandom | base64 >${secretFile}`])
  await save('sealed', `--snapshot-dir=${elsewhere}`, `--snapshot-secret-file=${secretFile}`)
  const { stdout } = await cluster.k8s(['snapshot', 'ls'])
  expect(stdout).toMatch(/^before-changes-\S+\.tar\.zst /m)
})

test('a restore is refused while the daemon runs, and changes nothing', async () => {
  await cluster.kubectl(['delete', 'deployment/web', 'configmap/kept'])
  await cluster.kubectl(['patch', 'secret/password', '--patch={"stringData":{"password":"new"}}'])
  await cluster.runPods(pod('later', sleepLater))
  seenRevision = await revision()
  const { exitCode, stderr } = await cluster.k8s(['snapshot', 'restore', snapshot], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toMatch(/cannot restore: the daemon runs[^\n]*k8s stop/)
  await cluster.ready()
  expect(await namesOf('pods')).toContain('later')
})

test('after a restore, killed when it was decided, the daemon finishes it, and the cluster is that of the snapshot', async () => {
  await stop()
  for (let step = 0; !existsSync(cluster.machine.path(`${defaultDataDir}/restore`)); step++) {
    // Not by the launcher, which lets nothing into the program that the environment names.
    const script = 'cd /var/lib/k8s/data/*/ && K8S_PAYLOAD_DIR=$PWD exec bin/node "$@"'
    const { exitCode } = await cluster.exec(
      ['sh', '-c', script, 'node', `--import=${dieAtStep}`, 'lib/main.js', 'snapshot', 'restore', snapshot],
      { env: { K8S_TEST_STEP: String(step) }, check: false },
    )
    expect(exitCode).not.toBe(0)
  }
  cluster.startDaemon()
  await cluster.ready()
  expect(cluster.daemon.log()).toContain('finished a restore that was interrupted')
  expect(readdirSync(cluster.machine.path(`${defaultDataDir}/replaced`))).toHaveLength(1)
  await expectSnapshotState()
  expect(await namesOf('pods')).not.toContain('later')
  await cluster.waitFor('the pod that the cluster knows no more is gone', async () =>
    processesOf(cluster.machine).every(({ arguments: given }) => !given.includes(sleepLater)),
  )
})

test('nobody is fooled who has seen what came after the snapshot', async () => {
  expect(await revision()).toBeGreaterThan(seenRevision)
  const seen = `resourceVersion=${seenRevision}`
  const watch = await cluster.kubectl([
    ...['get', '--raw'],
    `/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=5&${seen}`,
  ])
  expect(JSON.parse(watch.stdout)).toMatchObject({ type: 'ERROR', object: { code: 410, reason: 'Expired' } })
  const list = await cluster.kubectl(
    ['get', '--raw', `/api/v1/namespaces/default/configmaps?${seen}&resourceVersionMatch=Exact`],
    { check: false },
  )
  expect(list.exitCode).toBe(1)
  expect(list.stderr).toMatch(/too old resource version|is too old|Expired|compacted/)
})

test('a machine that lost everything goes on from a sealed snapshot with the same authorities', async () => {
  await cluster.exec(['cp', `${defaultDataDir}/admin.kubeconfig`, formerKubeconfig])
  await stop()
  await cluster.k8s(['reset', '--force'])
  expect((await cluster.exec(['ls', '-A', defaultDataDir], { check: false })).stdout).toBe('')
  const sealed = (await cluster.exec(['sh', '-c', `echo ${elsewhere}/sealed-*`])).stdout.trim()
  const unopened = await cluster.k8s(['snapshot', 'restore', sealed], { check: false })
  expect(unopened.stderr).toMatch(/it is sealed[^\n]*--snapshot-secret-file/)
  await cluster.k8s(['snapshot', 'restore', sealed, `--snapshot-secret-file=${secretFile}`])
  addTestImage(cluster.machine)
  cluster.startDaemon()
  await cluster.ready()
  await expectSnapshotState()
  const { stdout } = await cluster.kubectl([`--kubeconfig=${formerKubeconfig}`, 'auth', 'can-i', '*', '*'])
  expect(stdout.trim()).toBe('yes')
})

test('pods of a restore under another host name have addresses of the range that its Node got', async () => {
  await stop()
  await cluster.exec(['hostname', 'successor'])
  const sealed = (await cluster.exec(['sh', '-c', `echo ${elsewhere}/sealed-*`])).stdout.trim()
  await cluster.k8s(['snapshot', 'restore', sealed, `--snapshot-secret-file=${secretFile}`])
  cluster.startDaemon()
  await cluster.ready()
  const { spec } = await cluster.get<{ spec: { podCIDR: string } }>('node', 'successor')
  // The first range is still the one of the Node that the snapshot knows.
  expect(spec.podCIDR).toMatch(/^10\.244\.[1-9]\d*\.0\/24$/)
  await cluster.runPods(pod('newcomer', sleepForever, { spec: { nodeName: 'successor' } }))
  const [range = ''] = spec.podCIDR.split('0/24')
  expect(String((await cluster.pod('newcomer')).status.podIP).startsWith(range)).toBe(true)
})

/** Takes a snapshot and returns its path. */
async function save(name: string, ...flags: string[]): Promise<string> {
  const { stdout } = await cluster.k8s(['snapshot', 'save', name, ...flags])
  const [path = ''] = stdout.split('\n', 1)
  expect((await cluster.exec(['stat', '-c', '%a', path])).stdout.trim()).toBe('600')
  return path
}

async function stop(): Promise<void> {
  await cluster.k8s(['stop'])
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
}

async function namesOf(kind: string): Promise<string[]> {
  const { items } = await cluster.get<{ items: { metadata: { name: string } }[] }>(kind)
  return items.map(({ metadata }) => metadata.name)
}

/** The newest revision that a list shows. */
async function revision(): Promise<number> {
  const { stdout } = await cluster.kubectl(['get', '--raw', '/api/v1/namespaces/default/configmaps'])
  return Number((JSON.parse(stdout) as { metadata: { resourceVersion: string } }).metadata.resourceVersion)
}

/** What was there is there and works, what was not is not, and the database is sound. */
async function expectSnapshotState(): Promise<void> {
  expect(await namesOf('deployments')).toEqual(['web'])
  expect(await cluster.get('configmap', 'kept')).toMatchObject({ data: { value: 'first' } })
  const secret = await cluster.get<{ data: { password: string } }>('secret', 'password')
  expect(Buffer.from(secret.data.password, 'base64').toString()).toBe(password)
  // What the API server says of the old pod is of the time of the snapshot until the kubelet has looked.
  await cluster.waitFor('the pod of the deployment runs', async () => {
    const { items } = await cluster.get<{ items: Pod[] }>('pods', '--selector=app=web')
    return (
      items.length === 1 && (await cluster.shell(items[0]?.metadata.name ?? '', 'echo runs')) === 'runs\n'
    )
  })
  const probe = `probe-${Date.now()}`
  await cluster.runPods(pod(probe, sleepForever))
  await cluster.kubectl(['delete', 'pod', probe])
  expect((await cluster.k8s(['db', 'check'])).stdout).toMatch(/ is sound\.\n$/)
}
