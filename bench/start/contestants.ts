import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Machine, repository, type Running } from '../../test/integration/harness/machine.ts'
import { cpuTimeMs, memoryBytes, processesOf } from '../../test/integration/harness/processes.ts'

export type Contestant = 'k8s' | 'bare'

/** Longer than this and a start counts as failed. */
const startTimeoutMs = 120_000
const settleMs = 60_000
const idleMs = 60_000

/** What one start took; times are from the start of the first process. */
export interface Start {
  readonly apiserverReadyMs: number
  readonly nodeReadyMs: number
  /** The first command's time on an empty data directory less the second's; nothing is unpacked for `bare`. */
  readonly unpackMs: number | undefined
  readonly idle: Idle | undefined
}

export interface Idle {
  /** Proportional set size by process name, 60 s after Ready. */
  readonly memory: ReadonlyMap<string, number>
  /** Over the 60 s that follow. */
  readonly cpuMillicores: ReadonlyMap<string, number>
  /** The same of the pods that a cluster has by itself. */
  readonly addons?: Idle
}

interface Prepared {
  readonly command: readonly string[]
  readonly kubeconfig: string
  readonly unpackMs: number | undefined
}

const readyFile = '/run/apiserver-ready'
export const builtPayload = `${repository}/build/payload`

/** One start on an empty data directory in a machine of its own. */
export function measureStart(contestant: Contestant, { idle }: { idle: boolean }): Promise<Start> {
  return withStart({ contestant, payload: builtPayload }, async (machine, { times }) => ({
    ...times,
    idle: idle ? await measureIdle(machine, contestant) : undefined,
  }))
}

/** Proportional set size by process name of a bare cluster from another payload, 60 s after Ready. */
export function measureMemory(payload: string): Promise<ReadonlyMap<string, number>> {
  return withStart({ contestant: 'bare', payload }, async (machine) => {
    await sleep(settleMs)
    return memoryOf(machine, componentsOf(machine, 'bare'))
  })
}

interface Rig {
  readonly contestant: Contestant
  readonly payload: string
  /** NAME=VALUE */
  readonly kubeletFlags?: readonly string[]
  /** Further flags of the daemon. */
  readonly daemonFlags?: readonly string[]
}

/** What `use` makes of a cluster whose node is Ready; the cluster ends after it. */
export async function withStart<Value>(
  rig: Rig,
  use: (machine: Machine, started: { times: Omit<Start, 'idle'>; kubeconfig: string }) => Promise<Value>,
): Promise<Value> {
  const { contestant } = rig
  await using machine = await Machine.create({ name: `bench-${contestant}` })
  const { command, kubeconfig, unpackMs } = await prepare[contestant](machine, rig)
  await using observer = machine.spawn(
    [process.execPath, `${import.meta.dirname}/observe.ts`, kubeconfig, readyFile],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  const seen = readMarks(observer)
  await seen.observing
  const begun = process.hrtime.bigint()
  await using started = machine.spawn(command, { stdio: ['ignore', 'ignore', 'pipe'] })
  const words = keepTail(started)
  const failed = started.ended.then(() =>
    Promise.reject(new Error(`${contestant} ended before it was ready\n${words()}`)),
  )
  const late = sleep(startTimeoutMs, undefined, { ref: false }).then(() =>
    Promise.reject(new Error(`${contestant} was not ready after ${startTimeoutMs} ms\n${words()}`)),
  )
  failed.catch(() => {})
  late.catch(() => {})
  const marks = await Promise.race([seen.ready, failed, late])
  const since = (mark: bigint) => Number(mark - begun) / 1e6
  const times = { apiserverReadyMs: since(marks.apiserver), nodeReadyMs: since(marks.node), unpackMs }
  return await use(machine, { times, kubeconfig })
}

const prepare: Readonly<Record<Contestant, (machine: Machine, rig: Rig) => Promise<Prepared>>> = {
  /** An empty data directory but for the payload, which the first command unpacks. */
  async k8s(machine, { kubeletFlags = [], daemonFlags = [] }) {
    const first = await timed(() => machine.exec(['k8s', 'kubectl', 'version', '--client']))
    const second = await timed(() => machine.exec(['k8s', 'kubectl', 'version', '--client']))
    return {
      command: ['k8s', ...daemonFlags, ...kubeletFlags.map((flag) => `--kubelet-arg=${flag}`)],
      kubeconfig: '/var/lib/k8s/admin.kubeconfig',
      unpackMs: first - second,
    }
  },
  async bare(machine, { payload, kubeletFlags = [] }) {
    const directory = '/var/lib/bare'
    mkdirSync(machine.path(directory))
    await machine.exec([process.execPath, `${import.meta.dirname}/prepare-bare.ts`, directory, payload])
    const etcd = `${repository}/build/peers/etcd`
    const pause = `${payload}/images/pause.tar.zst`
    const script = `${import.meta.dirname}/bare.sh`
    return {
      command: [
        ...['bash', script, directory, `${payload}/bin`, etcd, pause, readyFile],
        ...kubeletFlags.map((flag) => `--${flag}`),
      ],
      kubeconfig: `${directory}/admin.kubeconfig`,
      unpackMs: undefined,
    }
  },
}

/** Milliseconds that `action` takes. */
export async function timed(action: () => Promise<unknown>): Promise<number> {
  const begun = performance.now()
  await action()
  return performance.now() - begun
}

/** The last words of a child on stderr, for the error that says it failed. */
function keepTail({ child }: Running): () => string {
  let tail = ''
  child.stderr?.on('data', (chunk) => (tail = (tail + String(chunk)).slice(-4000)))
  return () => tail
}

function readMarks({ child }: Running) {
  if (child.stdout === null) throw new Error('bug: the observer has no output')
  const lines = createInterface(child.stdout)
  const observing = once(lines, 'line')
  const ready = new Promise<{ apiserver: bigint; node: bigint }>((resolve) => {
    let apiserver = 0n
    lines.on('line', (line) => {
      const [mark, nanoseconds = '0'] = line.split(' ')
      if (mark === 'apiserver') apiserver = BigInt(nanoseconds)
      if (mark === 'node') resolve({ apiserver, node: BigInt(nanoseconds) })
    })
  })
  return { observing, ready }
}

async function measureIdle(machine: Machine, contestant: Contestant): Promise<Idle> {
  await sleep(settleMs)
  const [own, addons] = await Promise.all([
    useOf(machine, componentsOf(machine, contestant)),
    useOf(machine, addonsOf(machine)),
  ])
  return { ...own, addons }
}

/** What they have, and what they use in the time that follows. */
async function useOf(machine: Machine, components: readonly Named[]): Promise<Idle> {
  const memory = memoryOf(machine, components)
  const before = components.map(({ pid }) => cpuTimeMs(machine, pid))
  const begun = performance.now()
  await sleep(idleMs)
  const seconds = (performance.now() - begun) / 1000
  const used = components.map(({ pid, name }, index): [string, number] => [
    name,
    (cpuTimeMs(machine, pid) - (before[index] ?? 0)) / seconds,
  ])
  return { memory, cpuMillicores: sumByName(used) }
}

interface Named {
  readonly pid: number
  readonly name: string
}

/** Processes in pods: the daemon starts none of these itself. */
function addonsOf(machine: Machine): Named[] {
  const names = ['coredns', 'metrics-server', 'local-path-provisioner']
  return processesOf(machine).filter(({ name }) => names.includes(name))
}

function memoryOf(machine: Machine, components: readonly Named[]) {
  return sumByName(components.map(({ pid, name }) => [name, memoryBytes(machine, pid)]))
}

/** The daemon (or the script's etcd) and its components, without shims and what runs in containers. */
export function componentsOf(machine: Machine, contestant: Contestant) {
  const processes = processesOf(machine)
  const root = processes.find(({ name, arguments: given }) =>
    contestant === 'k8s'
      ? given.some((word) => word.endsWith('/lib/main.js'))
      : name === 'bash' && given.some((word) => word.endsWith('/bare.sh')),
  )
  if (root === undefined) throw new Error(`cannot find the root process of ${contestant}`)
  const children = processes.filter(
    ({ parentPid, name }) => parentPid === root.pid && name !== 'containerd-shim-runc-v2',
  )
  return contestant === 'k8s' ? [{ ...root, name: 'daemon' }, ...children] : children
}

export function sumByName(pairs: readonly (readonly [string, number])[]): Map<string, number> {
  const sums = new Map<string, number>()
  for (const [name, value] of pairs) sums.set(name, (sums.get(name) ?? 0) + value)
  return sums
}
