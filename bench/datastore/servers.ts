import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Member } from '../../src/datastore/member.ts'
import { freePort } from '../../test/free-port.ts'
import { repository } from '../../test/integration/harness/machine.ts'

export const contestants = ['k8s', 'etcd', 'kine', 'proxy'] as const
export type Contestant = (typeof contestants)[number]

const startTimeoutMs = 120_000
const startPollMs = 10
/** The kernel's clock ticks a second (USER_HZ), in /proc/PID/stat. */
const ticksPerSecond = 100

/** How each is started on a data directory and a port of its own: durable, and otherwise as it comes. */
export const commands: Record<Contestant, (directory: string, port: number) => readonly string[]> = {
  k8s: (directory, port) => [
    `${repository}/build/payload/bin/node`,
    `${repository}/build/payload/lib/main.js`,
    'datastore',
    `--data-dir=${directory}`,
    `--listen-address=127.0.0.1:${port}`,
  ],
  etcd: (directory, port) => [
    `${repository}/build/peers/etcd`,
    `--data-dir=${directory}/etcd`,
    `--listen-client-urls=http://127.0.0.1:${port}`,
    `--advertise-client-urls=http://127.0.0.1:${port}`,
    // Nobody dials it; the kernel chooses the port.
    '--listen-peer-urls=http://127.0.0.1:0',
    '--quota-backend-bytes=8589934592',
    '--log-level=error',
  ],
  // An etcd behind the proxy of server-mode ha, whose use alone is measured.
  proxy: (directory, port) => [
    `${repository}/build/payload/bin/node`,
    `${import.meta.dirname}/behind-proxy.ts`,
    directory,
    String(port),
  ],
  kine: (directory, port) => [
    `${repository}/build/peers/kine`,
    `--endpoint=sqlite://${directory}/state.db?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate`,
    `--listen-address=tcp://127.0.0.1:${port}`,
    '--metrics-bind-address=0',
  ],
}

export interface Use {
  readonly cpuSeconds: number
  readonly memoryMb: number
  readonly peakMemoryMb: number
}

interface StartOptions {
  readonly env?: Readonly<Record<string, string>>
  /** A data directory that stays when the server has gone. */
  readonly directory?: string
}

/** A server on an empty data directory, which goes with it, or on one that is there. */
export class Server implements AsyncDisposable {
  readonly endpoint: string
  /** From the start of the process until it has answered a read. */
  startMs = Number.NaN
  readonly #child: ChildProcess
  readonly #directory: string
  readonly #isKept: boolean
  /** Of it. */
  startCpuSeconds = Number.NaN

  private constructor(child: ChildProcess, endpoint: string, directory: string, isKept: boolean) {
    this.#child = child
    this.endpoint = endpoint
    this.#directory = directory
    this.#isKept = isKept
  }

  static async start(name: Contestant, { env = {}, directory: kept }: StartOptions = {}): Promise<Server> {
    const directory = kept ?? mkdtempSync(join(tmpdir(), `bench-${name}-`))
    const port = await freePort()
    const [command = '', ...args] = commands[name](directory, port)
    const log = join(directory, 'log')
    const logDescriptor = openSync(log, 'w')
    const begun = performance.now()
    const child = spawn(command, args, {
      stdio: ['ignore', logDescriptor, logDescriptor],
      cwd: directory,
      env: { PATH: process.env['PATH'], K8S_PAYLOAD_DIR: `${repository}/build/payload`, ...env },
    })
    closeSync(logDescriptor)
    const address = name === 'proxy' ? `unix://${join(directory, 'socket')}` : `http://127.0.0.1:${port}`
    const server = new Server(child, address, directory, kept !== undefined)
    using member = new Member({ address })
    for (const giveUpMs = begun + startTimeoutMs; !(await reads(member)); await sleep(startPollMs)) {
      if (child.exitCode === null && performance.now() < giveUpMs) continue
      const words = readFileSync(log, 'utf8').slice(-2000)
      await server[Symbol.asyncDispose]()
      throw new Error(`cannot start ${name}: ${words}`)
    }
    server.startMs = performance.now() - begun
    server.startCpuSeconds = cpuSeconds(child.pid)
    return server
  }

  /** Since the start of serving. */
  use(): Use {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')
    const megabytes = (name: string): number =>
      (Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024) / 1e6
    return {
      cpuSeconds: cpuSeconds(this.#child.pid) - this.startCpuSeconds,
      memoryMb: megabytes('VmRSS'),
      peakMemoryMb: megabytes('VmHWM'),
    }
  }

  /** Ends it as its service manager does. */
  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit')
      this.#child.kill('SIGKILL')
      await ended
    }
    if (!this.#isKept) rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** Whether a server answers a read; one that has only begun to listen may not answer at all. */
async function reads(member: Member): Promise<boolean> {
  try {
    await member.read('/registry/health', { isLocal: false, signal: AbortSignal.timeout(startTimeoutMs) })
    return true
  } catch {
    return false
  }
}

/** What a process has used so far. */
export function cpuSeconds(pid: number | undefined): number {
  // The name in parentheses may have spaces; utime and stime are the fields 14 and 15.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** The path of the client that drives servers. */
export function buildClient(): string {
  const output = `${repository}/build/bench/datastore-client`
  execFileSync('go', ['build', '-o', output, '.'], { cwd: `${import.meta.dirname}/client`, stdio: 'inherit' })
  return output
}
