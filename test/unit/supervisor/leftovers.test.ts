import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { endLeftovers, findLeftovers } from '../../../src/supervisor/leftovers.ts'
import { isAlive, readStat } from '../../../src/base/proc.ts'
import { writeRecord } from '../../../src/supervisor/records.ts'
import type { ProcessSpec, ProcessStatus } from '../../../src/supervisor/supervised-process.ts'
import {
  environment,
  fixture,
  program,
  recordingLogger,
  shell,
  supervise,
  temporaryDirectory,
  until,
  untilStatus,
} from './support.ts'

let directory: ReturnType<typeof temporaryDirectory>
let logger: ReturnType<typeof recordingLogger>
let recordDir: string
let started: number[]

/** Where sleep is. */
const programDirs = ['/usr/bin', '/bin']
/**
 * A component whose name is that of its program, as all of a cluster are; without a shell, which is somebody else for a
 * moment when it becomes the program.
 */
const sleep = { name: 'sleep', command: 'sleep', args: ['1000'] }

beforeEach(() => {
  directory = temporaryDirectory()
  logger = recordingLogger()
  recordDir = join(directory.path, 'processes')
  started = []
})

afterEach(() => {
  for (const pid of started) if (alive(pid)) process.kill(pid, 'SIGKILL')
  directory[Symbol.dispose]()
})

function alive(pid: number): boolean {
  const stat = readStat(pid)
  return stat !== undefined && isAlive({ pid, ...stat })
}

type DaemonSpec = Pick<ProcessSpec, 'command' | 'args'> & Partial<ProcessSpec>

/** Another daemon: a process that supervises some, of which `pid` is the first. */
async function startDaemon(...specs: [DaemonSpec, ...DaemonSpec[]]) {
  const common = { name: 'child', env: environment, logFormat: 'plain', stopTimeoutMs: 60_000, recordDir }
  const whole = specs.map((spec) => ({ ...common, ...spec }))
  const daemon = spawn(process.execPath, [fixture('supervise.ts'), JSON.stringify(whole)])
  started.push(daemon.pid!)
  const logged = createInterface({ input: daemon.stderr })
  const saidHolding = new Promise<void>((fulfil) =>
    logged.on('line', (line) => line.includes('"holding"') && fulfil()),
  )
  const pids: number[] = []
  for await (const line of createInterface({ input: daemon.stdout })) {
    const status = JSON.parse(line) as ProcessStatus
    if (status.state === 'running') pids.push(status.pid!)
    if (pids.length === specs.length) break
  }
  started.push(...pids)
  return { daemon, pid: pids[0]!, saidHolding }
}

async function kill(daemon: ChildProcess): Promise<void> {
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
}

const endAll = (order: readonly string[] = [], stopTimeoutMs = 60_000) =>
  endLeftovers({ recordDir, programDirs, order, stopTimeoutMs, log: logger.log })

describe('after kill -9 of the daemon', () => {
  test('the next start ends what it left before it starts its own', async () => {
    // The kernel gives the socket to one of them at a time: a start beside the old one would fail.
    const spec = program('hold-socket.ts', `k8s-test-${directory.path}`)
    const { daemon, pid, saidHolding } = await startDaemon(spec)
    await saidHolding
    await kill(daemon)
    expect(alive(pid)).toBe(true)

    await using next = supervise({ ...spec, recordDir })
    await next.supervised.start()
    expect(alive(pid)).toBe(false)
    await until(() => next.records().some(({ msg }) => msg === 'holding'))
    expect(next.supervised.status()).toMatchObject({ state: 'running', restarts: 0 })
  })

  test('one that ignores SIGTERM is killed at the limit', async () => {
    const { daemon, pid, saidHolding } = await startDaemon(
      program('hold-socket.ts', `k8s-test-${directory.path}`, 'stubborn'),
    )
    await saidHolding
    await kill(daemon)
    expect(await endAll([], 1)).toMatchObject([{ name: 'child', pid }])
    expect(alive(pid)).toBe(false)
    expect(readdirSync(recordDir)).toEqual([])
  })

  test('a stop hurries the end of what it left', async () => {
    const spec = program('hold-socket.ts', `k8s-test-${directory.path}`, 'stubborn')
    const { daemon, pid, saidHolding } = await startDaemon(spec)
    await saidHolding
    await kill(daemon)
    await using next = supervise({ ...spec, recordDir })
    const startup = next.supervised.start()
    await next.supervised.stop(AbortSignal.abort())
    await expect(startup).rejects.toMatchObject({ code: 'PROCESS_STOPPED' })
    expect(alive(pid)).toBe(false)
  })

  test('its marks lead to it when its record is lost', async () => {
    const { daemon, pid } = await startDaemon(sleep)
    await kill(daemon)
    writeFileSync(join(recordDir, 'sleep.json'), '')
    expect(await endAll()).toMatchObject([{ name: 'sleep', pid }])
    expect(alive(pid)).toBe(false)
  })

  test('its marks lead to it when its program is another version’s and removed', async () => {
    const program = join(directory.path, 'data', 'former', 'bin', 'sleep')
    mkdirSync(dirname(program), { recursive: true })
    copyFileSync('/bin/sleep', program)
    const { daemon, pid } = await startDaemon({ ...sleep, command: program })
    await kill(daemon)
    rmSync(join(directory.path, 'data', 'former'), { recursive: true })
    rmSync(join(recordDir, 'sleep.json'))
    symlinkSync(join(directory.path, 'data'), join(directory.path, 'link'))
    const dirs = [join(directory.path, 'link')]
    const ended = await endLeftovers({
      ...{ recordDir, programDirs: dirs, order: [], stopTimeoutMs: 60_000 },
      log: logger.log,
    })
    expect(ended).toMatchObject([{ name: 'sleep', pid }])
    expect(alive(pid)).toBe(false)
  })

  test('what it started itself lives on, as the shims of containerd have to', async () => {
    const path = join(directory.path, 'shim')
    const { daemon, pid } = await startDaemon(shell(`sleep 1000 & echo $! > ${path}; exec sleep 1000`))
    const shim = await until(() => existsSync(path) && Number(readFileSync(path, 'utf8')))
    started.push(shim)
    await kill(daemon)
    expect(await endAll()).toMatchObject([{ pid }])
    expect(alive(shim)).toBe(true)
  })

  test('several are ended in the given order, and first those that are not in it', async () => {
    const sleeps = (name: string) => ({ name, ...shell('exec sleep 1000') })
    const { daemon } = await startDaemon(
      sleeps('containerd'),
      sleeps('kubelet'),
      sleeps('gone-from-config'),
      sleeps('kube-proxy'),
    )
    await kill(daemon)
    const ended = await endAll(['kube-proxy', 'kubelet', 'containerd'])
    expect(ended.map(({ name }) => name)).toEqual(['gone-from-config', 'kube-proxy', 'kubelet', 'containerd'])
    expect(ended.filter(({ pid }) => alive(pid))).toEqual([])
    expect(findLeftovers({ recordDir, programDirs })).toEqual([])
  })
})

describe('while the daemon lives', () => {
  const refusal = (pid: number, daemonPid: number) => ({
    code: 'PROCESS_OWNED',
    message: `cannot take over sleep (process ${pid}): process ${daemonPid} supervises it`,
  })

  test('another one takes nothing over', async () => {
    const { daemon, pid } = await startDaemon(sleep)
    await expect(endAll()).rejects.toMatchObject(refusal(pid, daemon.pid!))
    await using other = supervise({ ...sleep, recordDir })
    await expect(other.supervised.start()).rejects.toMatchObject(refusal(pid, daemon.pid!))
    expect(other.supervised.status().state).toBe('stopped')
    expect(alive(pid)).toBe(true)
  })

  test('nothing runs twice within it', async () => {
    await using first = supervise(sleep)
    await first.supervised.start()
    const { pid } = await untilStatus(first.supervised, ({ state }) => state === 'running')
    await using second = supervise({ ...sleep, recordDir: first.recordDir })
    await expect(second.supervised.start()).rejects.toMatchObject(refusal(pid!, process.pid))
  })
})

describe('a stranger with the pid of a record lives on', () => {
  async function stranger(env: Record<string, string> = environment): Promise<number> {
    const child = spawn('sleep', ['1000'], { env, detached: true })
    await once(child, 'spawn')
    started.push(child.pid!)
    writeRecord(recordDir, { name: 'child', pid: child.pid! })
    return child.pid!
  }

  function changeRecord(change: Record<string, unknown>): void {
    const path = join(recordDir, 'child.json')
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }))
  }

  test('as it has no mark', async () => {
    const pid = await stranger()
    expect(await endAll()).toEqual([])
    expect(alive(pid)).toBe(true)
    expect(readdirSync(recordDir)).toEqual([])
  })

  test.each([
    ['start time', { startTicks: 1 }],
    ['boot', { bootId: '00000000-0000-0000-0000-000000000000' }],
    ['pid', { pid: process.pid }],
  ])('as its %s is another', async (_, change) => {
    const pid = await stranger({ ...environment, K8S_COMPONENT: 'child' })
    changeRecord(change)
    expect(await endAll()).toEqual([])
    expect(alive(pid)).toBe(true)
  })

  test('as it belongs to another cluster, which has the same paths in a mount namespace of its own', async () => {
    const marks = { K8S_COMPONENT: 'sleep', K8S_RECORD_DIR: recordDir }
    const args = ['--map-root-user', '--mount', 'sh', '-c', 'echo up; exec sleep 1000']
    const child = spawn('unshare', args, { env: { ...environment, ...marks }, detached: true })
    started.push(child.pid!)
    await once(child.stdout, 'data')
    expect(await endAll()).toEqual([])
    expect(alive(child.pid!)).toBe(true)
  })

  test('as it belongs to another data directory', async () => {
    const { daemon, pid } = await startDaemon({
      ...shell('exec sleep 1000'),
      recordDir: join(directory.path, 'other'),
    })
    await kill(daemon)
    expect(await endAll()).toEqual([])
    expect(alive(pid)).toBe(true)
  })
})

describe('marks alone make nobody ours', () => {
  /** As whoever wants to stop every start, or was called by a component and became a daemon. */
  async function marked(command: string, args: string[], options: SpawnOptions = {}): Promise<number> {
    const owner = readStat(process.pid)!
    const marks = {
      K8S_COMPONENT: 'sleep',
      K8S_RECORD_DIR: recordDir,
      K8S_SUPERVISOR: `${process.pid}:${owner.startTicks}`,
    }
    const child = spawn(command, args, { env: { ...environment, ...marks }, detached: true, ...options })
    await once(child, 'spawn')
    started.push(child.pid!)
    return child.pid!
  }

  test('they do on a program of ours that our user runs', async () => {
    await marked('sleep', ['1000'])
    await expect(endAll()).rejects.toMatchObject({ code: 'PROCESS_OWNED' })
  })

  test.skipIf(process.geteuid!() !== 0)(
    'another user’s process stops no start, and is not ended',
    async () => {
      const pid = await marked('sleep', ['1000'], { uid: 65_534 })
      expect(await endAll()).toEqual([])
      expect(alive(pid)).toBe(true)
    },
  )

  test('a helper that was called by a component is not it', async () => {
    const helper = join(directory.path, 'rpc.statd')
    copyFileSync('/bin/sleep', helper)
    const pids = [await marked(helper, ['1000']), await marked('tail', ['-f', '/dev/null'])]
    expect(await endAll()).toEqual([])
    expect(pids.every(alive)).toBe(true)
  })

  test('a program of the same name from elsewhere is not it', async () => {
    const elsewhere = join(directory.path, 'sleep')
    copyFileSync('/bin/sleep', elsewhere)
    const pid = await marked(elsewhere, ['1000'])
    expect(await endAll()).toEqual([])
    expect(alive(pid)).toBe(true)
  })
})

test.each(['', '{', 'null', '[]', '{"name":"child","pid":1,"startTicks":1,"bootId":""}', '{"pid":"4711"}'])(
  'a record that says %j names no process',
  async (text) => {
    await endAll()
    await using child = supervise({ ...shell('exec sleep 1000'), recordDir })
    await child.supervised.start()
    await child.supervised.stop(AbortSignal.abort())
    writeFileSync(join(recordDir, 'child.json'), text)
    await child.supervised.start()
    expect(child.supervised.status().state).toBe('running')
  },
)
