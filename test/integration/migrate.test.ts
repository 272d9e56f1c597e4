import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, defaultDataDir } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { processesOf } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

// A server alone, with an agent, becomes the first of several, and is alone again.

let lan: Lan
let server: Cluster
let agent: Cluster

beforeAll(async () => {
  lan = await Lan.create()
  const [first, second] = await Promise.all(['server', 'agent'].map((name) => Machine.create({ name })))
  const address = await lan.join(first!)
  await lan.join(second!)
  for (const machine of [first!, second!]) addTestImage(machine)
  server = new Cluster(first!, {})
  agent = new Cluster(second!, {})
  server.startDaemon()
  await server.ready()
  const token = (await server.k8s(['token', 'create', '--role=agent'])).stdout.trim()
  writeFileSync(second!.path('/run/token'), `${token}\n`)
  agent.startDaemon({ flags: ['agent', `--server=https://${address}:6443`, '--token-file=/run/token'] })
  await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.runPods(
    pod('here', sleepForever, { spec: { nodeName: nameOf(server) } }),
    pod('there', sleepForever, { spec: { nodeName: nameOf(agent) } }),
  )
  await server.kubectl(['create', 'secret', 'generic', 'kept', '--from-literal=word=xyzzy'])
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

test('it is refused while the daemon runs, and without a word on where to', async () => {
  const running = await server.k8s(['migrate', '--to=ha'], { check: false })
  expect([running.exitCode, running.stderr]).toEqual([
    1,
    'k8s: cannot migrate: the daemon runs. Stop it first: k8s stop (or systemctl stop k8s)\n',
  ])
  const unsaid = await server.k8s(['migrate'], { check: false })
  expect([unsaid.exitCode, unsaid.stderr]).toEqual([
    2,
    'k8s: cannot migrate without --to: allowed is ha or single\n',
  ])
  const elsewhere = await agent.k8s(['migrate', '--to=ha'], { check: false })
  expect([elsewhere.exitCode, elsewhere.stderr]).toEqual([
    1,
    expect.stringContaining('is the data directory of the role agent'),
  ])
})

test('a server alone becomes the first of an etcd: all has the versions that it had, and pods have not noticed', async () => {
  const before = await versions()
  const pods = await containers()
  await stop()
  const { stdout } = await server.k8s(['migrate', '--to=ha'])
  expect(stdout).toMatch(/^The cluster is kept in an etcd, in \/var\/lib\/k8s\/etcd, from now on: \d+ keys, /)
  expect((await server.k8s(['migrate', '--to=ha'])).stdout).toBe('The cluster has server-mode ha.\n')
  server.startDaemon()
  await expectSame(before)
  expect(await containers()).toEqual(pods)
  const { components } = await server.status()
  expect(components[0]).toMatchObject({ name: 'etcd', state: 'ready' })
  const { members } = JSON.parse((await server.k8s(['etcd', 'members', '-o', 'json'])).stdout)
  expect(members).toMatchObject([{ name: nameOf(server), role: 'leader' }])
  await server.kubectl(['create', 'configmap', 'in-etcd'])
})

test('killed at any moment, the way back leaves one state or the other, and what was acknowledged is there', async () => {
  const before = await versions()
  await server.kubectl(['create', 'configmap', 'last'])
  const { pid } = (await server.status()).components[0] ?? {}
  await server.daemon.stop('SIGKILL')
  await server.exec(['kill', '-KILL', String(pid)])
  const command = ['migrate', '--to=single']
  for (let limitMs = 300; !isSingle(); limitMs += 300) {
    await server.exec(['timeout', '--signal=KILL', `${limitMs / 1000}`, 'k8s', ...command], { check: false })
  }
  expect((await server.k8s(command)).stdout).toContain('The cluster has server-mode single.\n')
  server.startDaemon()
  await expectSame(before)
  await server.kubectl(['get', 'configmap', 'in-etcd', 'last'])
  expect((await server.k8s(['db', 'check'])).stdout).toMatch(/ is sound\.\n$/)
  const etcds = processesOf(server.machine).filter(({ arguments: given }) => given[0]?.endsWith('/etcd'))
  expect(etcds).toEqual([])
  expect(readdirSync(server.machine.path(`${defaultDataDir}/replaced`))).toHaveLength(2)
  for (const left of ['restore', 'restore.preparing', 'etcd', 'run/lone-etcd'])
    expect(existsSync(server.machine.path(`${defaultDataDir}/${left}`))).toBe(false)
})

test('settings that say otherwise are refused with what to do', async () => {
  await stop()
  for (const flag of ['--server-mode=ha', '--cluster-init']) {
    const { exitCode, stderr } = await server.exec(['timeout', '60', 'k8s', flag], { check: false })
    expect([exitCode, stderr]).toEqual([2, expect.stringMatching(/^k8s: cannot use --/)])
  }
  server.startDaemon()
  await server.ready()
})

function isSingle(): boolean {
  return (
    !existsSync(server.machine.path(`${defaultDataDir}/restore`)) &&
    server.machine.read(`${defaultDataDir}/cluster.json`).includes('"server-mode": "single"')
  )
}

async function stop(): Promise<void> {
  await server.k8s(['stop'])
  await server.daemon.ended
}

function nameOf(cluster: Cluster): string {
  return cluster.machine.hostName
}

/** The versions of objects that nobody changes, and that of the newest write. */
async function versions(): Promise<{ objects: Record<string, string>; newest: number }> {
  const { metadata, items } = JSON.parse(
    (await server.kubectl(['get', '--raw', '/apis/rbac.authorization.k8s.io/v1/clusterroles'])).stdout,
  ) as {
    metadata: { resourceVersion: string }
    items: { metadata: { name: string; resourceVersion: string } }[]
  }
  const objects = items.map((item) => [item.metadata.name, item.metadata.resourceVersion])
  return { objects: Object.fromEntries(objects), newest: Number(metadata.resourceVersion) }
}

async function containers(): Promise<unknown> {
  const pods = await Promise.all(['here', 'there'].map((name) => server.pod(name)))
  return pods.map(({ status }) => status.containerStatuses?.map(({ containerID }) => containerID))
}

async function expectSame(before: Awaited<ReturnType<typeof versions>>): Promise<void> {
  await server.ready()
  await agent.ready()
  const { objects, newest } = await versions()
  expect(objects).toEqual(before.objects)
  expect(newest).toBeGreaterThanOrEqual(before.newest)
  const { data } = await server.get<{ data: Record<string, string> }>('secret', 'kept')
  expect(data).toEqual({ word: Buffer.from('xyzzy').toString('base64') })
  await server.waitFor('the agent works', () => server.kubectl(['exec', 'there', '--', 'true']))
}
