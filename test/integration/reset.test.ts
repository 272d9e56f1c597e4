import { copyFileSync, lstatSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { busyboxArchive } from './harness/images.ts'
import type { Machine } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'
import { waitFor } from './harness/wait.ts'

/** Where the links lead that stand for the directories of the data and of the kubelet. */
const dataTarget = '/var/lib/other/k8s'
const kubeletTarget = '/var/lib/other/kubelet'

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({ name: 'reset', prepare: prepareMachine })
  await cluster.runPods(
    pod('keeper', sleepForever, {
      container: {
        volumeMounts: [{ name: 'kubelet', mountPath: '/kubelet', mountPropagation: 'HostToContainer' }],
      },
      spec: { volumes: [{ name: 'kubelet', hostPath: { path: kubeletTarget } }] },
    }),
  )
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('on a machine without shared mounts pods see what is mounted in the directory of the kubelet', async () => {
  await cluster.exec(['mkdir', `${kubeletTarget}/late`])
  await cluster.exec(['mount', '-t', 'tmpfs', 'tmpfs', `${kubeletTarget}/late`])
  await cluster.exec(['touch', `${kubeletTarget}/late/seen`])
  expect(await cluster.shell('keeper', 'ls /kubelet/late')).toBe('seen\n')
  await cluster.exec(['umount', `${kubeletTarget}/late`])
  const { stdout } = await cluster.k8s(['check', '-o', 'json'], { check: false })
  const rows = JSON.parse(stdout) as { name: string; state: string; remedy?: string }[]
  expect(rows.find(({ name }) => name === 'mount propagation')).toMatchObject({
    state: 'warning',
    remedy: expect.stringContaining('mount --make-rshared /'),
  })
})

test('what is in use is tried again, then named, and nothing starts meanwhile', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  const mount = mountsOf(cluster.machine).find((path) => path.startsWith(`${kubeletTarget}/pods/`))
  expect(mount).toContain(kubeletTarget)
  await using holder = cluster.machine.spawn(['sh', '-c', `cd ${mount} && exec sleep 1000`])
  await waitFor('the mount is in use', () => holder.hostPid())
  await using resetting = cluster.machine.spawn(['k8s', 'reset', '--force'])
  const output = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const)
    resetting.child[stream]?.on('data', (chunk: Buffer) => (output[stream] += chunk.toString()))
  // Stopped, it is under way for as long as a daemon takes to be refused; one that came first would have run.
  await waitFor('the reset has begun', () => output.stdout.includes('\n'))
  resetting.kill('SIGSTOP')
  const daemon = await cluster.k8s([], { check: false })
  resetting.kill('SIGCONT')
  expect(daemon.stderr).toContain('`k8s reset` is under way')
  expect(daemon.exitCode).toBe(1)
  expect((await resetting.ended).exitCode).toBe(1)
  expect(output.stderr).toContain(`cannot unmount ${mount}, which is in use by sleep`)
  const left = mountsOf(cluster.machine).filter((path) => path.startsWith('/var/lib/other'))
  expect(new Set(left)).toEqual(new Set([kubeletTarget, mount]))
})

test('a second reset takes up what was left, empties what links lead to, and leaves the links', async () => {
  expect((await cluster.k8s(['reset', '--force'])).exitCode).toBe(0)
  expect(mountsOf(cluster.machine).filter((path) => path.startsWith('/var/lib/other'))).toEqual([])
  expect(readdirSync(cluster.machine.path(dataTarget))).toEqual([])
  expect(readdirSync(cluster.machine.path(kubeletTarget))).toEqual([])
  for (const link of [defaultDataDir, '/var/lib/kubelet'])
    expect(lstatSync(cluster.machine.path(link)).isSymbolicLink()).toBe(true)
  expect(readdirSync(cluster.machine.path('/run')).filter((name) => name.includes('k8s'))).toEqual([])
})

test('and a cluster starts there anew', async () => {
  cluster.startDaemon()
  await cluster.ready()
  expect((await cluster.kubectl(['get', 'pods', '-o', 'name'])).stdout).toBe('')
})

/** As without systemd, which makes / shared; and two directories moved elsewhere. */
async function prepareMachine(machine: Machine): Promise<void> {
  await machine.exec(['mount', '--make-rprivate', '/'])
  for (const [path, target] of [
    [defaultDataDir, dataTarget],
    ['/var/lib/kubelet', kubeletTarget],
  ] as const) {
    mkdirSync(machine.path(target), { recursive: true })
    symlinkSync(target, machine.path(path))
  }
  mkdirSync(machine.path(`${dataTarget}/images`))
  copyFileSync(busyboxArchive, machine.path(`${dataTarget}/images/busybox.tar.zst`))
}

function mountsOf(machine: Machine): string[] {
  return machine
    .read('/proc/1/mountinfo')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
}
