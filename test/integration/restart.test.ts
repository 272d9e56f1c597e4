import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, startCluster } from './harness/cluster.ts'
import { type Pod, pod, sleepForever } from './harness/manifests.ts'
import { processesNamed, processesOf, processNamed, processNames } from './harness/processes.ts'
import { waitFor } from './harness/wait.ts'
import { reportFailures } from './harness/report.ts'

let cluster: Cluster
let keeper: Pod

beforeAll(async () => {
  cluster = await startCluster({ name: 'restart' })
  await cluster.runPods(pod('keeper', sleepForever))
  keeper = await cluster.pod('keeper')
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test.for(processNames)('%s is started again after SIGKILL, and all is Ready again', async (name) => {
  const before = processNamed(cluster.machine, name)
  await kill(before.pid, 'KILL')
  const after = await cluster.waitFor(`${name} runs again`, async () => {
    const component = (await cluster.status()).components.find((one) => one.name === name)
    return component?.state === 'ready' && component.pid !== before.pid ? component : undefined
  })
  expect(after.restarts).toBeGreaterThanOrEqual(1)
  await expectWorkingCluster()
  await expectKeeperUntouched()
  expect(failuresOf(name).join('\n')).toContain('SIGKILL')
})

test('components that hang are noticed, killed and started again, and the pod is untouched', async () => {
  // The API server has a longer limit than the others, and they need it.
  const names = processNames.filter((name) => name !== 'kube-apiserver')
  const before = names.map((name) => processNamed(cluster.machine, name).pid)
  for (const pid of before) await kill(pid, 'STOP')
  await cluster.waitFor(
    'all run again',
    async () => {
      const { components } = await cluster.status()
      const pids = names.map((name) => components.find((one) => one.name === name)?.pid)
      return components.every(({ state }) => state === 'ready') && pids.every((pid, at) => pid !== before[at])
    },
    { timeoutMs: 180_000, intervalMs: 1_000 },
  )
  await expectWorkingCluster()
  await expectKeeperUntouched()
  for (const name of names) expect(failuresOf(name).join('\n')).toMatch(/it has not answered for \d+ s/)
})

test('SIGTERM stops the components strictly in reverse, and pods live on', async () => {
  const container = processInKeeper()
  cluster.daemon.signal('SIGTERM')
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
  const stopped = cluster.daemon
    .records()
    .filter(({ msg }) => msg === 'component stopped')
    .map(({ component }) => component)
  const order = [
    'kube-proxy',
    'kubelet',
    'kube-scheduler',
    'kube-controller-manager',
    'kube-apiserver',
    'containerd',
    'datastore',
  ]
  expect(stopped).toEqual(order)
  // Pods watch the API server; it must end all the same.
  expect(cluster.daemon.records().filter(({ msg }) => msg.includes('did not stop in time'))).toEqual([])
  expect(runningProcesses()).toEqual([])
  expect(processInKeeper()).toEqual(container)
})

test('after a stop and a start the pod kept its start time, container and restart count', async () => {
  const container = processInKeeper()
  cluster.startDaemon()
  await cluster.ready()
  await expectWorkingCluster()
  await expectKeeperUntouched()
  expect(processInKeeper()).toEqual(container)
})

test('after SIGKILL of the daemon the next start takes over, and nothing runs twice', async () => {
  const container = processInKeeper()
  // Of another user, who wants no start to succeed; and what a kubelet's mount has left, as root.
  const marks = strangerMarks()
  await using _hostile = cluster.machine.spawn([
    ...['setsid', 'setpriv', '--reuid=65534', 'env'],
    ...[...marks, 'sleep', '4711'],
  ])
  await using _helper = cluster.machine.spawn(['setsid', 'env', ...marks, 'sleep', '4712'])
  const strangers = () =>
    processesNamed(cluster.machine, 'sleep').filter(({ arguments: [time] }) => /^471[12]$/.test(time ?? ''))
  await waitFor('the strangers run', () => strangers().length === 2)
  cluster.daemon.signal('SIGKILL')
  expect((await cluster.daemon.ended).signal).toBe('SIGKILL')
  expect(processesNamed(cluster.machine, 'kubelet')).toHaveLength(1)
  cluster.startDaemon()
  await cluster.ready()
  await expectWorkingCluster()
  expect(runningProcesses()).toEqual(processNames)
  const supervised = (await cluster.status()).components.flatMap(({ name, pid }) =>
    name === 'datastore' ? [] : [[name, pid]],
  )
  expect(Object.fromEntries(supervised)).toEqual(
    Object.fromEntries(processNames.map((name) => [name, processNamed(cluster.machine, name).pid])),
  )
  await expectKeeperUntouched()
  expect(processInKeeper()).toEqual(container)
  expect(strangers()).toHaveLength(2)
})

test('a component that ignores SIGTERM is killed after its limit', async () => {
  // A stopped process does not get to its SIGTERM.
  await kill(processNamed(cluster.machine, 'kube-scheduler').pid, 'STOP')
  cluster.daemon.signal('SIGTERM')
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
  expect(processesNamed(cluster.machine, 'kube-scheduler')).toEqual([])
  const killed = cluster.daemon
    .records()
    .filter(({ component, msg }) => component === 'kube-scheduler' && /kill/i.test(msg))
  expect(killed).not.toEqual([])
})

test('a second signal hurries the stop', async () => {
  cluster.startDaemon()
  await cluster.ready()
  // Without the second signal the stop would wait for each of these until its limit.
  for (const name of processNames) await kill(processNamed(cluster.machine, name).pid, 'STOP')
  cluster.daemon.signal('SIGTERM')
  const hasBegun = () => cluster.daemon.records().some(({ msg }) => msg === 'stopping')
  await waitFor('the stop has begun', hasBegun, { intervalMs: 20 })
  cluster.daemon.signal('SIGTERM')
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
  const records = cluster.daemon.records()
  expect(records.filter(({ msg }) => msg.includes('did not stop in time'))).toEqual([])
  const killed = records.filter(({ msg, signal }) => msg === 'stopped' && signal === 'SIGKILL')
  expect(killed.map(({ component }) => component)).toEqual(processNames.toReversed())
  expect(runningProcesses()).toEqual([])
})

test('a stop during the start leaves nothing running', async () => {
  cluster.startDaemon()
  await cluster.waitFor(
    'the API server is being started',
    async () => processesNamed(cluster.machine, 'kube-apiserver').length === 1,
    {
      intervalMs: 20,
    },
  )
  cluster.daemon.signal('SIGINT')
  expect((await cluster.daemon.ended).signal).toBeNull()
  expect(runningProcesses()).toEqual([])
  cluster.startDaemon()
  await cluster.ready()
  await expectKeeperUntouched()
})

/** The environment of a component whose supervisor lives, for which the machine's first process stands. */
function strangerMarks(): string[] {
  const first = processesOf(cluster.machine).find(({ pid }) => pid === 1)
  return [
    'K8S_COMPONENT=kubelet',
    'K8S_RECORD_DIR=/var/lib/k8s/run/processes',
    `K8S_SUPERVISOR=1:${first?.startTime}`,
  ]
}

async function kill(pid: number, signal: string): Promise<void> {
  await cluster.exec(['sh', '-c', `kill -${signal} ${pid}`])
}

/** Writes, schedules and runs: every component has its part in this. */
async function expectWorkingCluster(): Promise<void> {
  await cluster.ready()
  const name = `probe-${Date.now()}`
  await cluster.runPods(pod(name, sleepForever))
  expect(await cluster.shell(name, 'echo runs')).toBe('runs\n')
  await cluster.kubectl(['delete', 'pod', name])
}

async function expectKeeperUntouched(): Promise<void> {
  const { metadata, status } = await cluster.pod('keeper')
  const [before] = keeper.status.containerStatuses ?? []
  const [after] = status.containerStatuses ?? []
  expect(metadata.uid).toBe(keeper.metadata.uid)
  expect(status.startTime).toBe(keeper.status.startTime)
  expect(after).toMatchObject({
    restartCount: 0,
    containerID: before?.containerID,
    state: { running: { startedAt: before?.state.running?.startedAt } },
  })
}

/** The container's first process, the same one as long as it was not restarted. */
function processInKeeper() {
  const shells = processesOf(cluster.machine).filter(
    ({ name, arguments: given }) => name === 'sh' && given[1] === sleepForever,
  )
  expect(shells).toHaveLength(1)
  return shells[0]
}

/** The name of each process of a component, once for each, in the order of their start. */
function runningProcesses(): string[] {
  return processNames.flatMap((name) => processesNamed(cluster.machine, name).map(() => name))
}

function failuresOf(component: string): string[] {
  return cluster.daemon
    .log()
    .split('\n')
    .filter((line) => line.includes(component) && /"level":"(warn|error)"/.test(line))
}
