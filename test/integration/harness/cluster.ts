import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Daemon } from './daemon.ts'
import { busyboxArchive } from './images.ts'
import { Machine, type ExecOptions, type ExecResult, type Running } from './machine.ts'
import type { Pod } from './manifests.ts'
import { waitFor, type WaitOptions } from './wait.ts'

export const defaultDataDir = '/var/lib/k8s'

/** Where artifacts were unpacked on a machine, as its own programs see it: a directory for each that is kept. */
export function payloadsOf(machine: Machine): string[] {
  const directory = `${defaultDataDir}/data`
  const names = readdirSync(machine.path(directory)).filter((name) => /^[0-9a-f]+$/.test(name))
  return names.map((name) => `${directory}/${name}`)
}

/** How long a node may take to be Ready on a loaded machine before that counts as never. */
const readyTimeoutMs = 180_000
/** One that hangs is killed with its machine all the same. */
const coverageStopLimitMs = 60_000
/** Each question is a process of its own, which takes from the start what it measures. */
const readyIntervalMs = 500

export interface ClusterOptions {
  /** The machine's host name, and so the node's name, begins with it. */
  readonly name: string
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly umask?: string
  /** Runs before the first start; by default puts the test image into the images directory. */
  readonly prepare?: (machine: Machine) => Promise<void> | void
}

/** Starts the built artifact on an empty data directory in a machine of its own, and waits until its node is Ready. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const machine = await Machine.create({ name: options.name })
  const cluster = new Cluster(machine, options)
  try {
    await (options.prepare ?? addTestImage)(machine)
    cluster.startDaemon()
    await cluster.ready()
    // The node may be quicker than the controller that makes what pods of the namespace need.
    await cluster.waitFor('pods are admitted', () => cluster.get('serviceaccount', 'default'))
    return cluster
  } catch (error) {
    const report = await cluster.report()
    await machine[Symbol.asyncDispose]()
    throw new Error(`cannot start the cluster ${options.name}\n${report}`, { cause: error })
  }
}

/** Where a start of the daemon finds it. */
export function addTestImage(machine: Machine): void {
  const directory = machine.path(`${defaultDataDir}/images`)
  mkdirSync(directory, { recursive: true })
  copyFileSync(busyboxArchive, `${directory}/busybox.tar.zst`)
}

/** A machine with a daemon in it, and what a user would do there. */
export class Cluster implements AsyncDisposable {
  readonly machine: Machine
  readonly #flags: readonly string[]
  readonly #env: Readonly<Record<string, string>>
  readonly #umask: string
  #daemon: Daemon | undefined

  constructor(machine: Machine, options: Pick<ClusterOptions, 'flags' | 'env' | 'umask'>) {
    const { flags = [], env = {}, umask = '022' } = options
    this.machine = machine
    this.#umask = umask
    this.#flags = flags
    this.#env = env
  }

  /** The latest run of the daemon. */
  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error('the daemon was never started')
    return this.#daemon
  }

  startDaemon({
    flags = [],
    env = {},
  }: {
    flags?: readonly string[]
    env?: Readonly<Record<string, string>>
  } = {}): Daemon {
    this.#daemon = Daemon.start(this.machine, {
      flags: [...this.#flags, ...flags],
      env: { ...this.#env, ...env },
      umask: this.#umask,
    })
    return this.#daemon
  }

  /**
   * Waits until this daemon says that its components and the node are ready, or fails with the
   * daemon's end when that comes first. The API server alone may still show what was true under an earlier daemon.
   */
  async ready(): Promise<void> {
    const isReady = async () => {
      const { nodeReady, components } = await this.status()
      return nodeReady && components.every(({ state }) => state === 'ready')
    }
    await this.waitFor('all is ready', isReady, { timeoutMs: readyTimeoutMs, intervalMs: readyIntervalMs })
  }

  /** k8s status -o json, which ends with 3 when something is not as it should be. */
  async status(): Promise<Status> {
    const { exitCode, stdout, stderr } = await this.k8s(['status', '-o', 'json'], { check: false })
    if (exitCode !== 0 && exitCode !== 3) throw new Error(`cannot read the status: ${exitCode}\n${stderr}`)
    return JSON.parse(stdout) as Status
  }

  exec(command: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return this.machine.exec(command, options)
  }

  /** `k8s ARGUMENTS` with the environment that the daemon has. */
  k8s(arguments_: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return this.exec(['k8s', ...arguments_], { ...options, env: { ...this.#env, ...options?.env } })
  }

  kubectl(arguments_: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return this.k8s(['kubectl', ...arguments_], options)
  }

  /** kubectl as a command that runs on: `await using forward = cluster.kubectlStart([...])`. */
  kubectlStart(arguments_: readonly string[]): Running {
    return this.machine.spawn(['k8s', 'kubectl', ...arguments_], { env: this.#env })
  }

  /** kubectl get ... -o json, parsed. */
  async get<Type>(...arguments_: readonly string[]): Promise<Type> {
    return JSON.parse((await this.kubectl(['get', ...arguments_, '-o', 'json'])).stdout) as Type
  }

  /** Until a ConfigMap of that name is written: by a try whose answer was lost, perhaps. */
  async untilWritten(name: string): Promise<void> {
    await this.waitFor('writes are taken', async () => {
      const { exitCode, stderr } = await this.kubectl(['create', 'configmap', name], { check: false })
      return exitCode === 0 || stderr.includes('already exists')
    })
  }

  /** Applies manifests; objects become JSON, which kubectl reads as well. */
  async apply(...manifests: readonly object[]): Promise<void> {
    const list = { apiVersion: 'v1', kind: 'List', items: manifests }
    await this.kubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) })
  }

  /** Applies the pods and waits until they are ready. */
  async runPods(...pods: readonly { metadata: { name: string } }[]): Promise<void> {
    await this.apply(...pods)
    await this.waitForPods(pods.map(({ metadata }) => metadata.name))
  }

  async waitForPods(names: readonly string[]): Promise<void> {
    const resources = names.map((name) => `pod/${name}`)
    await this.wait(['--for=condition=Ready', ...resources])
  }

  /** kubectl wait, whose failure comes with a report. */
  async wait(
    arguments_: readonly string[],
    { timeoutSeconds = 90 }: { timeoutSeconds?: number } = {},
  ): Promise<void> {
    const command = ['wait', `--timeout=${timeoutSeconds}s`, ...arguments_]
    const { exitCode, stderr } = await this.kubectl(command, {
      check: false,
      timeoutMs: (timeoutSeconds + 10) * 1000,
    })
    if (exitCode !== 0) throw new Error(`kubectl ${command.join(' ')}: ${stderr}\n${await this.report()}`)
  }

  async pod(name: string): Promise<Pod> {
    return this.get<Pod>('pod', name)
  }

  /** Runs a shell line in a pod and returns what it printed. */
  async shell(pod: string, line: string, options?: ExecOptions): Promise<string> {
    return (await this.kubectl(['exec', pod, '--', 'sh', '-c', line], options)).stdout
  }

  /** waitFor that ends early when the daemon has ended, and whose failure comes with a report. */
  async waitFor<Value>(
    what: string,
    condition: () => Promise<Value | undefined | null | false>,
    options: WaitOptions = {},
  ): Promise<Value> {
    const daemon = this.#daemon
    const giveUp = () =>
      daemon?.ending === undefined
        ? undefined
        : new Error(`the daemon ended with ${JSON.stringify(daemon.ending)} before ${what}`)
    try {
      return await waitFor(what, condition, { giveUp, ...options })
    } catch (error) {
      throw new Error(`${String(error)}\n${await this.report()}`, { cause: error })
    }
  }

  /** What one would look at first when something is wrong. */
  async report(): Promise<string> {
    const parts = [`--- daemon log\n${this.#daemon?.logTail() ?? '(never started)'}`]
    for (const arguments_ of [
      ['get', 'pods', '--all-namespaces', '--output=wide'],
      ['get', 'events', '--all-namespaces'],
    ]) {
      const { stdout, stderr } = await this.kubectl(arguments_, { check: false, timeoutMs: 5000 })
      parts.push(`--- kubectl ${arguments_.join(' ')}\n${stdout}${stderr}`)
    }
    return parts.join('\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Killed with the machine, the daemon would not tell what it ran.
    if (process.env['NODE_V8_COVERAGE'] !== undefined) {
      await Promise.race([this.#daemon?.stop(), sleep(coverageStopLimitMs, undefined, { ref: false })])
    }
    await this.machine[Symbol.asyncDispose]()
  }
}

export interface Status {
  readonly nodeReady: boolean
  readonly state: 'starting' | 'ready' | 'degraded' | 'stopping'
  readonly problems: readonly string[]
  readonly parts: readonly { readonly name: string; readonly state: string; readonly message?: string }[]
  readonly components: readonly {
    readonly name: string
    readonly state: string
    readonly pid?: number
    readonly restarts: number
    readonly since: string
  }[]
}
