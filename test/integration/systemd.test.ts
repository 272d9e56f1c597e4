import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BootedMachine } from './harness/booted.ts'
import { busyboxArchive } from './harness/images.ts'
import type { ExecOptions } from './harness/machine.ts'
import { repository } from './harness/machine.ts'
import { type Pod, pod, sleepForever } from './harness/manifests.ts'
import { processesNamed, processNames } from './harness/processes.ts'
import { waitFor } from './harness/wait.ts'

const minute = 60_000

let booted: BootedMachine

beforeAll(async () => {
  booted = await BootedMachine.boot({
    name: 'systemd',
    prepare: (root) => {
      // The artifact is built already, which `make install` would see to.
      make(root, 'install')
      mkdirSync(`${root}/var/lib/k8s/images`, { recursive: true })
      copyFileSync(busyboxArchive, `${root}/var/lib/k8s/images/busybox.tar.zst`)
    },
  })
}, 20 * minute)
afterAll(() => booted?.[Symbol.asyncDispose](), minute)

test('make install puts the binary, the unit and its environment in place', () => {
  const mode = (path: string) => (statSync(`${booted.root}${path}`).mode & 0o777).toString(8)
  expect(mode('/usr/local/bin/k8s')).toBe('755')
  expect(mode('/etc/systemd/system/k8s.service')).toBe('644')
  expect(mode('/etc/k8s/k8s.env')).toBe('600')
})

test('systemctl start returns when the API serves, and what is needed beside it comes after', async () => {
  await systemctl(['start', 'k8s'])
  expect((await kubectl(['get', 'namespace', 'default', '-o', 'name'])).stdout).toBe('namespace/default\n')
  const { stdout } = await booted.exec(['k8s', 'status', '--wait', '-o', 'json'], { timeoutMs: 2 * minute })
  const { nodeReady, components } = JSON.parse(stdout) as {
    nodeReady: boolean
    components: { state: string }[]
  }
  expect(nodeReady).toBe(true)
  expect(components.map(({ state }) => state)).toEqual(components.map(() => 'ready'))
})

test('systemctl status shows it running, with its last lines', async () => {
  const { stdout } = await systemctl(['status', 'k8s', '--no-pager', '--full'])
  expect(stdout).toMatch(/Active: active \(running\)/)
  expect(stdout).toMatch(/Main PID: \d+/)
})

test('journalctl -u k8s has the lines of the daemon and of each component', async () => {
  const { stdout } = await booted.exec(['journalctl', '-u', 'k8s', '--output=cat', '--no-pager'])
  for (const component of processNames) {
    expect(stdout).toContain(component)
  }
})

test('when memory runs out, the daemon and its components are the last to be ended, or check says why not', async () => {
  if (!mayLowerScores()) {
    const { stdout, stderr } = await booted.exec(['k8s', 'check'], { check: false })
    expect(stdout + stderr).toMatch(/CAP_SYS_RESOURCE/)
    return
  }
  const score = async (pid: number | string) =>
    Number((await booted.exec(['cat', `/proc/${pid}/oom_score_adj`])).stdout)
  expect(await score(await property('MainPID'))).toBe(-999)
  const { components } = JSON.parse((await booted.exec(['k8s', 'status', '-o', 'json'])).stdout) as {
    components: { name: string; pid?: number }[]
  }
  const scores = await Promise.all(
    components.map(async ({ name, pid }) => ({ name, score: pid === undefined ? 0 : await score(pid) })),
  )
  expect(scores.filter((entry) => entry.score > -998)).toEqual([])
})

test('a pod runs, and lives on when the service restarts', async () => {
  await waitFor('pods are admitted', () => kubectl(['get', 'serviceaccount', 'default']))
  await kubectl(['apply', '-f', '-'], { stdin: JSON.stringify(pod('keeper', sleepForever)) })
  await kubectl(['wait', '--for=condition=Ready', 'pod/keeper', '--timeout=90s'], { timeoutMs: 100_000 })
  const before = await containerOfKeeper()
  await systemctl(['restart', 'k8s'])
  expect(await containerOfKeeper()).toEqual(before)
})

test('a killed daemon is started again by systemd, and the pod is untouched', async () => {
  const before = await containerOfKeeper()
  const pid = await property('MainPID')
  await systemctl(['kill', '--kill-whom=main', '--signal=KILL', 'k8s'])
  await waitFor(
    'another daemon is ready',
    async () => (await property('MainPID')) !== pid && (await property('ActiveState')) === 'active',
    {
      timeoutMs: minute,
    },
  )
  expect(await containerOfKeeper()).toEqual(before)
})

test('a daemon that hangs is started again by systemd, and the pod is untouched', async () => {
  const before = await containerOfKeeper()
  const dropIn = '/etc/systemd/system/k8s.service.d'
  await booted.exec(['mkdir', '-p', dropIn])
  await booted.exec(['sh', '-c', `printf '[Service]\\nWatchdogSec=20s\\n' >${dropIn}/watchdog.conf`])
  await systemctl(['daemon-reload'])
  await systemctl(['restart', 'k8s'])
  const pid = await property('MainPID')
  const restarts = Number(await property('NRestarts'))
  await systemctl(['kill', '--kill-whom=main', '--signal=STOP', 'k8s'])
  await waitFor(
    'another daemon is ready',
    async () => (await property('MainPID')) !== pid && (await property('ActiveState')) === 'active',
    { timeoutMs: 2 * minute },
  )
  expect(await containerOfKeeper()).toEqual(before)
  // It hung; those that follow feed the watchdog.
  expect(await property('NRestarts')).toBe(String(restarts + 1))
  await booted.exec(['rm', '-r', dropIn])
  await systemctl(['daemon-reload'])
})

test('systemctl stop ends the components and leaves the pod running', async () => {
  await systemctl(['stop', 'k8s'])
  expect(await property('ActiveState')).toBe('inactive')
  expect(await property('Result')).toBe('success')
  expect(processesNamed(booted.machine, 'kubelet')).toEqual([])
  const shells = processesNamed(booted.machine, 'sh')
  expect(shells.filter(({ arguments: given }) => given[1] === sleepForever)).toHaveLength(1)
})

test('bad configuration fails the unit at once, is not tried again, and is in the journal', async () => {
  await booted.exec(['sh', '-c', 'echo K8S_V=99 >>/etc/k8s/k8s.env'])
  expect((await systemctl(['start', 'k8s'], { check: false })).exitCode).not.toBe(0)
  expect(await property('ActiveState')).toBe('failed')
  expect(await property('ExecMainStatus')).toBe('2')
  const { stdout } = await booted.exec([
    'journalctl',
    '-u',
    'k8s',
    '--output=cat',
    '--no-pager',
    '--lines=20',
  ])
  expect(stdout).toMatch(/K8S_V=99[^\n]*from 0 to 10/)
  await booted.exec(['sed', '-i', '/K8S_V=/d', '/etc/k8s/k8s.env'])
})

test('a datastore is a unit as any other: systemctl start runs the role of the settings', async () => {
  const config = 'role: datastore\ndata-dir: /var/lib/datastore\n'
  await booted.exec(['sh', '-c', 'cat >/etc/k8s/config.yaml'], { stdin: config })
  await systemctl(['reset-failed', 'k8s'])
  await systemctl(['start', 'k8s'])
  const { stdout } = await booted.exec(['k8s', 'status'])
  expect(stdout).toMatch(/^datastore +ready /m)
  expect(stdout).toContain('The datastore is ready.')
  expect((await systemctl(['status', 'k8s', '--no-pager'])).stdout).toContain(
    'serving on http://127.0.0.1:2379',
  )
  await systemctl(['stop', 'k8s'])
  expect(await property('Result')).toBe('success')
  await booted.exec(['k8s', 'reset', '--force'])
  expect((await booted.exec(['ls', '/var/lib/datastore'], { check: false })).exitCode).not.toBe(0)
  await booted.exec(['rm', '/etc/k8s/config.yaml'])
})

test('an agent whose servers are away is started all the same, says what it waits for, and is left alone by the watchdog', async () => {
  const token = `k8s1-agent-${'a'.repeat(64)}-abcdef.0123456789abcdef`
  const config = `role: agent\ndata-dir: /var/lib/agent\nserver: https://127.0.0.1:1\ntoken: ${token}\n`
  await booted.exec(['sh', '-c', 'cat >/etc/k8s/config.yaml'], { stdin: config })
  await booted.exec(['mkdir', '-p', '/run/systemd/system/k8s.service.d'])
  await booted.exec(['sh', '-c', 'cat >/run/systemd/system/k8s.service.d/watchdog.conf'], {
    stdin: '[Service]\nWatchdogSec=2s\n',
  })
  await systemctl(['daemon-reload'])
  await systemctl(['start', 'k8s'])
  const started = await property('MainPID')
  const waiting = 'waiting for a server: https://127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1'
  expect(await property('StatusText')).toBe(waiting)
  const { exitCode, stdout } = await booted.exec(['k8s', 'status'], { check: false })
  expect([exitCode, stdout]).toEqual([3, expect.stringContaining(waiting)])
  // A pause: the watchdog would have ended it by then.
  await sleep(5_000)
  expect(await property('MainPID')).toBe(started)
  await systemctl(['stop', 'k8s'])
  expect(await property('Result')).toBe('success')
  await booted.exec(['rm', '-r', '/run/systemd/system/k8s.service.d'])
  await systemctl(['daemon-reload'])
  // Not by a reset: the pods of the server that was here before run on, and their cgroups are the machine's.
  await booted.exec(['rm', '-r', '/var/lib/agent', '/etc/k8s/config.yaml'])
})

test('reset and make uninstall leave the machine as it was', async () => {
  await booted.exec(['k8s', 'reset', '--force'])
  expect((await booted.exec(['ip', '-o', 'link'])).stdout.trim().split('\n')).toHaveLength(3)
  make(booted.root, 'uninstall')
  const { stdout } = await booted.exec([
    'find',
    '/usr/local/bin',
    '/etc/systemd/system',
    '/var/lib',
    '-name',
    '*k8s*',
  ])
  expect(stdout).toBe('')
})

function make(root: string, target: 'install' | 'uninstall'): void {
  execFileSync('make', ['--old-file=build', '--old-file=setup', target, `DESTDIR=${root}`], {
    cwd: repository,
    stdio: 'pipe',
  })
}

function systemctl(arguments_: readonly string[], options?: ExecOptions) {
  return booted.exec(['systemctl', ...arguments_], { timeoutMs: 5 * minute, ...options })
}

function kubectl(arguments_: readonly string[], options?: ExecOptions) {
  return booted.exec(['k8s', 'kubectl', ...arguments_], options)
}

async function property(name: string): Promise<string> {
  return (await systemctl(['show', 'k8s', `--property=${name}`, '--value'])).stdout.trim()
}

/** What stays the same as long as nobody restarts the container. */
async function containerOfKeeper() {
  const { stdout } = await kubectl(['get', 'pod', 'keeper', '-o', 'json'])
  const { status } = JSON.parse(stdout) as Pod
  const [container] = status.containerStatuses ?? []
  return { startTime: status.startTime, id: container?.containerID, restarts: container?.restartCount }
}

/** CAP_SYS_RESOURCE, bit 24, without which nobody's OOM score is lowered: this machine's containers may lack it. */
function mayLowerScores(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  return ((BigInt(`0x${effective}`) >> 24n) & 1n) === 1n
}
