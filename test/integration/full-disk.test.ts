import { mkdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { deployment, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// The data directory has a disk of its own, which something else fills to the last byte.

const diskBytes = 900 * 1024 ** 2
const ballast = `${defaultDataDir}/ballast`
const diskIsFull = 'datastore: no writes: its disk is full. Free space; writes go on by themselves then'
const quotaIsReached =
  'datastore: no writes: the database has reached its quota. Delete objects, compact ("k8s db compact"), then "k8s db disarm"'
const refusal = 'etcdserver: mvcc: database space exceeded'

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({
    name: 'full-disk',
    // The kubelet's own five minutes are as long as the tests of a whole file.
    flags: ['--kubelet-arg=eviction-pressure-transition-period=1s'],
    async prepare(machine) {
      mkdirSync(machine.path(defaultDataDir))
      await machine.exec([
        'mount',
        '-t',
        'tmpfs',
        '-o',
        `mode=755,size=${diskBytes}`,
        'tmpfs',
        defaultDataDir,
      ])
      addTestImage(machine)
    },
  })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

/** Ends in a disk that takes not one byte more. */
async function fillDisk(): Promise<void> {
  const { exitCode, stderr } = await cluster.exec(['sh', '-c', `cat /dev/zero >>${ballast}`], {
    check: false,
  })
  expect({ exitCode, stderr }).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('No space left'),
  })
}

let written = 0
/** Why it was refused; '' when it was not. */
async function write(bytes = 10): Promise<string> {
  const name = `written-${written++}`
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels: { test: 'full' } } }
  const stdin = JSON.stringify({ ...object, data: { value: 'v'.repeat(bytes) } })
  const { exitCode, stderr } = await cluster.kubectl(['create', '-f', '-'], { stdin, check: false })
  return exitCode === 0 ? '' : stderr
}

async function writeUntilRefused(): Promise<void> {
  let refused = ''
  while (refused === '') refused = await write(500_000)
  expect(refused).toContain(refusal)
}

async function shown(): Promise<{ exitCode: number | null; stdout: string }> {
  const { exitCode, stdout } = await cluster.k8s(['status'], { check: false })
  return { exitCode, stdout }
}

const restarts = async () => (await cluster.status()).components.map((component) => component.restarts)

test('a full disk stops writes and nothing else, and is told', async () => {
  expect(await write()).toBe('')
  await fillDisk()
  await writeUntilRefused()
  const { exitCode, stdout } = await shown()
  expect(exitCode).toBe(3)
  expect(stdout).toContain(`the cluster is degraded.\n  ${diskIsFull}\n`)
  const { data } = await cluster.get<{ data: { value: string } }>('configmap', 'written-0')
  expect(data.value).toBe('v'.repeat(10))
})

test('a start while the disk is full serves what is there', async () => {
  await cluster.daemon.stop()
  await fillDisk()
  cluster.startDaemon()
  await cluster.ready()
  await writeUntilRefused()
  expect((await cluster.status()).problems).toContain(diskIsFull)
  expect(await cluster.get<object>('configmap', 'written-0')).toMatchObject({
    data: { value: 'v'.repeat(10) },
  })
  expect(await restarts()).toEqual([0, 0, 0, 0, 0, 0, 0])
})

test('a disk that is freed takes writes and pods again, without anybody’s help', async () => {
  await cluster.exec(['rm', ballast])
  await cluster.waitFor('a write is taken', async () => (await write()) === '')
  await cluster.waitFor('all is well', async () => (await shown()).exitCode === 0)
  expect(await restarts()).toEqual([0, 0, 0, 0, 0, 0, 0])
  // While it could not write, the kubelet told nobody of the pressure; what comes before it does is evicted, and replaced.
  await cluster.apply(deployment('after', sleepForever))
  await cluster.wait(['--for=condition=Available', 'deployment/after'])
})

test('the quota stops writes until objects are deleted and somebody lowers the alarm', async () => {
  await cluster.daemon.stop()
  cluster.startDaemon({ flags: ['--quota-backend-bytes=8000000'] })
  await cluster.ready()
  await writeUntilRefused()
  const { exitCode, stdout } = await shown()
  expect(exitCode).toBe(3)
  expect(stdout).toContain(quotaIsReached)

  await cluster.kubectl(['delete', 'configmap', '--selector=test=full'])
  await cluster.k8s(['db', 'compact'])
  expect(await write()).toContain(refusal)
  expect((await cluster.k8s(['db', 'disarm'])).stdout).toBe('Lowered the alarm NOSPACE.\n')
  expect(await write()).toBe('')
  await cluster.waitFor('all is well', async () => (await shown()).exitCode === 0)
})
