import { fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { hostState, remainsOf } from './harness/host-state.ts'
import { Machine, repository } from './harness/machine.ts'
import { waitFor } from './harness/wait.ts'

// What the other files rely on: a machine keeps to itself, and goes when its runner goes.

test('a machine has its own host name, network, processes, cgroups and state directories', async () => {
  await using machine = await Machine.create({ name: 'own', program: '' })
  expect((await machine.exec(['hostname'])).stdout.trim()).toMatch(/^own-/)
  expect((await machine.exec(['ip', 'route', 'show', 'default'])).stdout).toContain('dev eth0')
  const pids = (await machine.exec(['ls', '/proc'])).stdout.split('\n').filter((name) => /^\d+$/.test(name))
  expect(pids).toHaveLength(2)
  for (const line of (await machine.exec(['cat', '/proc/self/cgroup'])).stdout.trim().split('\n')) {
    expect(line).toMatch(/:\/(init)?$/)
  }
  const state = (
    await machine.exec(['find', '/var/lib', '/tmp', '/var/log', '-mindepth', '1', '-maxdepth', '1'])
  ).stdout
  // A repository below one of them is there as well.
  expect(state.split('\n').filter((path) => path !== '' && !`${repository}/`.startsWith(`${path}/`))).toEqual(
    [],
  )
})

test('a machine reaches no network', async () => {
  await using machine = await Machine.create({ name: 'offline', program: '' })
  const links = (await machine.exec(['ls', '/sys/class/net'])).stdout.trim().split(/\s+/)
  expect(links.sort()).toEqual(['eth0', 'lo', 'nowhere'])
})

test('orphans are reaped', async () => {
  await using machine = await Machine.create({ name: 'orphans', program: '' })
  await machine.exec(['sh', '-c', '(sh -c "exit 3" & echo $! > /tmp/orphan) &'])
  const orphan = machine.read('/tmp/orphan').trim()
  const isGone = () => !existsSync(machine.path(`/proc/${orphan}`))
  await waitFor('the orphan is no zombie', isGone)
  expect(isGone()).toBe(true)
})

test('what is written to /etc, /run, /tmp, /var and /proc/sys stays in the machine', async () => {
  const before = hostState()
  const machine = await Machine.create({ name: 'writes', program: '' })
  await machine.exec([
    'sh',
    '-c',
    'mkdir -p /etc/k8s /run/containerd /var/lib/kubelet && echo 1 >/proc/sys/vm/overcommit_memory',
  ])
  await machine.exec([
    'sh',
    '-c',
    'ip link add cni0 type bridge && nft add table ip kube-proxy && echo 1 >/proc/sys/net/ipv4/ip_forward',
  ])
  expect(hostState()).toEqual(before)
  await machine[Symbol.asyncDispose]()
  expect(remainsOf(machine)).toEqual([])
  expect(hostState()).toEqual(before)
})

test('a machine goes with its runner, even when that is killed', async () => {
  const runner = fork(`${import.meta.dirname}/harness/abandoned-machine.ts`, {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const failed = once(runner, 'exit').then(() => Promise.reject(new Error('the runner ended early')))
  const [machine] = (await Promise.race([once(runner, 'message'), failed])) as [
    { id: string; directory: string },
  ]
  failed.catch(() => {})
  expect(remainsOf(machine)).not.toEqual([])
  runner.kill('SIGKILL')
  await waitFor('nothing is left of the machine', () => remainsOf(machine).length === 0)
  expect(remainsOf(machine)).toEqual([])
})

test('a machine ends with a command that is stopped', async () => {
  await using machine = await Machine.create({ name: 'stopped', program: '' })
  const running = machine.spawn(['sleep', '1000'])
  await waitFor('it runs', () =>
    readFileSync(`/proc/${running.hostPid()}/cmdline`, 'utf8').startsWith('sleep'),
  )
  running.kill('SIGSTOP')
  await waitFor('nsenter has stopped, too', () =>
    / T /.test(readFileSync(`/proc/${running.child.pid}/stat`, 'utf8')),
  )
  await machine[Symbol.asyncDispose]()
  await running.ended
  expect(remainsOf(machine)).toEqual([])
})

test('a machine that cannot be made says why and leaves nothing', async () => {
  const program = `${import.meta.dirname}/no-such-artifact`
  await expect(Machine.create({ name: 'refused', program })).rejects.toThrow(
    /cannot make the machine .*no-such-artifact/s,
  )
})

test('host files are reached by the machine as the same path', async () => {
  await using machine = await Machine.create({ name: 'paths', program: '' })
  const file = `${machine.directory}/from-host`
  writeFileSync(file, 'seen')
  expect((await machine.exec(['cat', file])).stdout).toBe('seen')
})

// Another kubelet, a Docker: what they have mounted was listed in the machine, and reset could not tell it from its own.
test("a machine has none of its host's mounts and settings, another kubelet's for one", async () => {
  const host = `
    mount -t tmpfs foreign-state /var/lib
    mkdir -p /var/lib/kubelet/pods/1/volumes /var/lib/docker
    mount --bind /var/lib/kubelet /var/lib/kubelet
    mount -t tmpfs foreign-pod /var/lib/kubelet/pods/1/volumes
    mount -t tmpfs foreign-docker /var/lib/docker
    mount -t tmpfs foreign-etc /etc/k8s 2>/dev/null || mount -t tmpfs foreign-log /var/log
    mount -t tmpfs foreign-run /run && mkdir /run/containerd && mount -t tmpfs foreign-containerd /run/containerd`
  await using machine = await Machine.create({ name: 'beside', program: '', host })
  const mounts = (await machine.exec(['cat', '/proc/self/mountinfo'])).stdout
  expect(mounts).not.toContain('foreign')
  expect((await machine.exec(['ls', '/var/lib'])).stdout).toBe('')
  for (const path of ['/etc/k8s', '/etc/cni', '/etc/containerd', '/run/containerd']) {
    expect(existsSync(machine.path(path)), path).toBe(false)
  }
})
