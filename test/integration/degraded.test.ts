import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Machine } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'

// A kubelet that cannot run: whoever has to find out why needs the API server.

let cluster: Cluster

beforeAll(async () => {
  const machine = await Machine.create({ name: 'degraded' })
  addTestImage(machine)
  cluster = new Cluster(machine, {})
  cluster.startDaemon({ flags: ['--kubelet-arg=no-such-flag=1'] })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('a kubelet that fails again and again ends nothing else, and is shown with its reason', async () => {
  await cluster.waitFor('the kubelet has failed often', async () => {
    const { components } = await cluster.status()
    return components.some(({ name, restarts }) => name === 'kubelet' && restarts >= 5)
  })
  const { exitCode, stdout } = await cluster.k8s(['status'], { check: false })
  expect(exitCode).toBe(3)
  expect(stdout).toMatch(/^kube-apiserver +ready /m)
  expect(stdout).toMatch(/the cluster is degraded\.\n {2}kubelet is [a-z]+: .*unknown flag: --no-such-flag/)
  expect((await cluster.kubectl(['get', 'namespace', 'default', '-o', 'name'])).stdout).toBe(
    'namespace/default\n',
  )
})

test('status --wait ends with an exit code of its own after its time', async () => {
  const { exitCode } = await cluster.k8s(['status', '--wait', '--timeout=1s'], { check: false })
  expect(exitCode).toBe(3)
})

test('k8s stop ends it in good order', async () => {
  await cluster.k8s(['stop'])
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
})

test('an API server that cannot run ends the start, with its reason', async () => {
  cluster.startDaemon({ flags: ['--kube-apiserver-arg=no-such-flag=1'] })
  expect(await cluster.daemon.ended).toEqual({ exitCode: 1, signal: null })
  expect(cluster.daemon.log()).toMatch(/k8s: cannot start kube-apiserver: .*unknown flag: --no-such-flag/)
})
