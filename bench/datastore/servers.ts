import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { answers } from '../../src/base/unix-socket.ts'
import { freePort } from '../../test/free-port.ts'
import { repository } from '../../test/integration/harness/machine.ts'

export const contestants = ['k8s', 'etcd', 'kine', 'proxy'] as const
export type Contestant = (typeof contestants)[number]

const startTimeoutMs = 20_000
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
  readonly peakMemoryMb: number
}

/** A server on an empty data directory, which goes with it. */
export class Server implements AsyncDisposable {
  readonly endpoint: string
  readonly #child: ChildProcess
  readonly #directory: string
  #beforeSeconds = 0

  private constructor(child: ChildProcess, directory: string, endpoint: string) {
    this.#child = child
    this.#directory = directory
    this.endpoint = endpoint
  }

  static async start(name: Contestant, env: Readonly<Record<string, string>> = {}): Promise<Server> {
    const directory = mkdtempSync(join(tmpdir(), `bench-${name}-`))
    const port = await freePort()
    const [command = '', ...args] = commands[name](directory, port)
    const log = join(directory, 'log')
    const logDescriptor = openSync(log, 'w')
    const child = spawn(command, args, {
      stdio: ['ignore', logDescriptor, logDescriptor],
      cwd: directory,
      env: { PATH: process.env['PATH'], K8S_PAYLOAD_DIR: `${repository}/build/payload`, ...env },
    })
    closeSync(logDescriptor)
    const socket = join(directory, 'socket')
    const [endpoint, where] =
      name === 'proxy'
        ? [`unix://${socket}`, { path: socket }]
        : [`http://127.0.0.1:${port}`, { host: '127.0.0.1', port }]
    const server = new Server(child, directory, endpoint)
    for (const giveUpMs = Date.now() + startTimeoutMs; !(await answers(where)); await sleep(50)) {
      if (child.exitCode === null && Date.now() < giveUpMs) continue
      const words = readFileSync(log, 'utf8').slice(-2000)
      await server[Symbol.asyncDispose]()
      throw new Error(`cannot start ${name}: ${words}`)
    }
    server.#beforeSeconds = cpuSeconds(child.pid)
    return server
  }

  /** Since the start of serving. */
  use(): Use {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')
    const peakKb = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1])
    return {
      cpuSeconds: cpuSeconds(this.#child.pid) - this.#beforeSeconds,
      peakMemoryMb: (peakKb * 1024) / 1e6,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit')
      this.#child.kill('SIGKILL')
      await ended
    }
    rmSync(this.#directory, { recursive: true, force: true })
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
