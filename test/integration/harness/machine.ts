import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { machineScript } from '../../../src/lab/machine.ts'
import { requireClusterHost } from './requirements.ts'

export const repository = resolve(import.meta.dirname, '../../..')
export const artifact = process.env['K8S_ARTIFACT'] ?? `${repository}/dist/artifacts/k8s`

export { machineScript }
const defaultTimeoutMs = 60_000

/** Nothing of the runner's environment reaches a machine, least of all K8S_* settings. */
const baseEnvironment = {
  PATH: '/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/tmp',
  LANG: 'C.UTF-8',
  ...coverageSetting(),
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>
  /** What the command's output goes to; by default pipes. */
  readonly stdio?: readonly ('pipe' | 'ignore' | number)[]
}

export interface ExecOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string | Buffer
  readonly timeoutMs?: number
  /** Throw on a failed command; on by default. */
  readonly check?: boolean
}

export interface ExecResult {
  readonly exitCode: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A command that runs inside. The child is nsenter, which waits outside for the command and ends as it did. */
export class Running {
  readonly child: ChildProcess
  readonly ended: Promise<Pick<ExecResult, 'exitCode' | 'signal'>>

  constructor(child: ChildProcess) {
    this.child = child
    this.ended = once(child, 'close').then(([exitCode, signal]) => ({ exitCode, signal }) as ExecResult)
  }

  /** The command's process id on the host; undefined before nsenter has forked it and after its end. */
  hostPid(): number | undefined {
    const { pid } = this.child
    if (pid === undefined) return undefined
    const children = readOrEmpty(`/proc/${pid}/task/${pid}/children`).trim()
    return children === '' ? undefined : Number(children.split(' ')[0])
  }

  /** Signals the command itself: nsenter does not pass signals on, but stops when its command is stopped. */
  kill(signal: NodeJS.Signals): void {
    const pid = this.hostPid()
    if (pid !== undefined) process.kill(pid, signal)
    if (signal === 'SIGCONT' || signal === 'SIGKILL') this.wake()
  }

  /** A nsenter that has stopped with its command would not notice that it has ended, and what is not reaped keeps its machine. */
  wake(): void {
    this.child.kill('SIGCONT')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL')
    await this.ended
  }
}

/**
 * A machine inside this one, made of namespaces: its own processes, mounts, network, host name and
 * cgroups, with empty /run, /tmp, /var/lib and /var/log, and an /etc whose changes are thrown away.
 * It ends, and all of it goes, when it is disposed of or when the runner dies.
 */
export class Machine implements AsyncDisposable {
  readonly #running = new Set<Running>()
  readonly id: string
  /** On the host; gone after the end unless K8S_TEST_KEEP is set. */
  readonly directory: string
  /** The machine's pid 1, as the host numbers it. */
  readonly initPid: number
  readonly #outer: ChildProcess
  readonly #errors: Promise<string>

  private constructor(
    id: string,
    directory: string,
    initPid: number,
    outer: ChildProcess,
    errors: Promise<string>,
  ) {
    this.id = id
    this.directory = directory
    this.initPid = initPid
    this.#outer = outer
    this.#errors = errors
  }

  /** By which its Node is known, too. */
  get hostName(): string {
    return this.id.replace('k8s-test-', '')
  }

  /**
   * `name` becomes the host name. `program` is what runs as `k8s` inside; '' for none. `host` is a shell line that
   * changes what the machine takes for its host, in a mount namespace between the two.
   */
  static async create(given: { name: string; program?: string; host?: string }): Promise<Machine> {
    const { name, program = artifact, host } = given
    const parent = process.env['K8S_TEST_DIRECTORY'] ?? `${repository}/build/integration`
    mkdirSync(parent, { recursive: true })
    requireClusterHost(parent)
    const directory = mkdtempSync(`${parent}/${name}-`)
    const id = `k8s-test-${name}-${randomBytes(3).toString('hex')}`
    const run = ['/bin/bash', machineScript, 'run', id, directory, program, repository]
    const between = ['unshare', '--mount', '/bin/bash', '-e', '-c', `${host}\nexec "$@"`, 'between']
    const [command = '', ...args] = host === undefined ? run : [...between, ...run]
    const outer = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...baseEnvironment, PATH: baseEnvironment.PATH.replace('/run/bin:', ''), ...keepSetting() },
      // A terminal's Ctrl-C must not end the one that cleans up.
      detached: true,
    })
    const errors = text(outer.stderr)
    const initPid = await readReadyLine(outer)
    if (initPid === undefined) throw new Error(`cannot make the machine ${id}: ${(await errors).trim()}`)
    return new Machine(id, directory, initPid, outer, errors)
  }

  /** A file of the machine's, as the host reaches it; only while the machine lives. */
  path(inside: string): string {
    return `/proc/${this.initPid}/root${inside}`
  }

  read(inside: string): string {
    return readFileSync(this.path(inside), 'utf8')
  }

  /** Starts a command and lets it run; `await using` ends it. */
  spawn(command: readonly string[], { env, stdio = ['ignore', 'pipe', 'pipe'] }: SpawnOptions = {}): Running {
    const child = spawn('/bin/bash', [machineScript, 'enter', this.id, String(this.initPid), ...command], {
      stdio: [...stdio],
      env: { ...baseEnvironment, ...env },
      detached: true,
    })
    const running = new Running(child)
    this.#running.add(running)
    const forget = () => this.#running.delete(running)
    running.ended.then(forget, forget)
    return running
  }

  /** Runs a command to its end. */
  async exec(
    command: readonly string[],
    { env = {}, stdin, timeoutMs = defaultTimeoutMs, check = true }: ExecOptions = {},
  ): Promise<ExecResult> {
    const running = this.spawn(command, {
      env,
      stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    })
    const { child } = running
    const killer = setTimeout(() => running.kill('SIGKILL'), timeoutMs)
    child.stdin?.on('error', () => {})
    child.stdin?.end(stdin)
    const [stdout, stderr, { exitCode, signal }] = await Promise.all([
      child.stdout === null ? '' : text(child.stdout),
      child.stderr === null ? '' : text(child.stderr),
      running.ended,
    ])
    clearTimeout(killer)
    if (check && exitCode !== 0) {
      const ending = signal === null ? `exit code ${exitCode}` : `${signal}, after ${timeoutMs} ms at most`
      throw new Error(`cannot run ${command.join(' ')}: ${ending}\n${stderr}${stdout}`)
    }
    return { exitCode, signal, stdout, stderr }
  }

  /** Ends every process inside and waits until the cgroups and the directory are gone. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#outer.exitCode === null && this.#outer.signalCode === null) {
      const closed = once(this.#outer, 'close')
      this.#outer.stdin?.end()
      for (const running of this.#running) running.wake()
      await closed
    }
    const errors = (await this.#errors).trim()
    if (errors !== '') throw new Error(`cannot end the machine ${this.id} cleanly: ${errors}`)
  }
}

/** Where daemons write what they ran (`make coverage`); the repository is at the same place in each machine. */
function coverageSetting(): Record<string, string> {
  const directory = process.env['NODE_V8_COVERAGE']
  return directory === undefined ? {} : { K8S_COVERAGE_DIR: directory }
}

function keepSetting(): Record<string, string> {
  const keep = process.env['K8S_TEST_KEEP']
  return keep === undefined ? {} : { K8S_TEST_KEEP: keep }
}

/** The pid in "ready PID", or undefined when the set-up ended without it. */
async function readReadyLine(outer: ChildProcess): Promise<number | undefined> {
  let output = ''
  for await (const chunk of outer.stdout ?? []) {
    output += String(chunk)
    const ready = /^ready (\d+)$/m.exec(output)
    if (ready !== null) return Number(ready[1])
  }
  return undefined
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
