import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseToken } from '../../src/cluster/join/token.ts'
import { Cluster, defaultDataDir } from '../../test/integration/harness/cluster.ts'
import { EtcdCluster } from '../../test/integration/harness/etcd.ts'
import { readKubeconfig } from '../../test/integration/harness/kubeconfig.ts'
import { Lan } from '../../test/integration/harness/lan.ts'
import { Machine, repository, type Running } from '../../test/integration/harness/machine.ts'
import { cpuTimeMs, memoryBytes, processesOf } from '../../test/integration/harness/processes.ts'
import type { Answer, Asked } from './inside.ts'

export const contestants = ['datastore', 'etcd'] as const
export type Contestant = (typeof contestants)[number]

/** Whose processes are the control plane's, whose are the server's own node's, and whose are hollow nodes. */
export const parts = [
  ...['daemon', 'etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'],
  ...['containerd', 'kubelet', 'kube-proxy'],
  'kubemark',
] as const
export type Part = (typeof parts)[number]
export const controlPlane: readonly Part[] = parts.slice(0, 5)

/** What the processes of a part have and have used. */
export interface Use {
  /** Proportional set size. */
  readonly bytes: number
  /** Since their start. */
  readonly cpuMs: number
}

const kubemark = `${repository}/build/peers/kubemark`
/** Hollow nodes that share a process. */
const nodesPerProcess = 25
/** Hollow node N has the Nth address after it. */
const hollowAddresses = '10.89.4.0'
const hollowRange = `${hollowAddresses}/22`
/** Of a Node a /24 each: more than the 256 of the default. */
const clusterCidr = '10.64.0.0/14'
const requestTimeoutMs = 150_000
const logDirectory = `${repository}/build/scale`

/** A server on the one storage or the other, and a machine with hollow nodes beside it. */
export class ScaledCluster implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack
  readonly #cluster: Cluster
  readonly #hollow: Machine
  readonly #api: Inside
  readonly #contestant: Contestant
  #nodes = 0
  #ended: string | undefined

  private constructor(
    stack: AsyncDisposableStack,
    parts_: { cluster: Cluster; hollow: Machine; api: Inside; contestant: Contestant },
  ) {
    this.#stack = stack
    this.#cluster = parts_.cluster
    this.#hollow = parts_.hollow
    this.#api = parts_.api
    this.#contestant = parts_.contestant
  }

  static async start(contestant: Contestant): Promise<ScaledCluster> {
    mkdirSync(logDirectory, { recursive: true })
    await using stack = new AsyncDisposableStack()
    const lan = stack.use(await Lan.create())
    const machine = stack.use(await Machine.create({ name: `scale-${contestant}` }))
    const hollow = stack.use(await Machine.create({ name: 'hollow', program: '' }))
    await lan.join(machine)
    const address = await lan.join(hollow)
    await machine.exec(['ip', 'route', 'add', hollowRange, 'via', address])
    const flags = [`--cluster-cidr=${clusterCidr}`]
    if (contestant === 'etcd') {
      const etcd = stack.use(new EtcdCluster(machine, 1))
      etcd.startAll()
      flags.push('--server-mode=ha', ...etcd.flags)
    }
    const cluster = stack.use(new Cluster(machine, { flags }))
    cluster.startDaemon()
    await cluster.ready()
    await writeBootstrapKubeconfig(cluster, hollow)
    const api = stack.use(new Inside(machine))
    return new ScaledCluster(stack.move(), { cluster, hollow, api, contestant })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack[Symbol.asyncDispose]()
  }

  get nodes(): number {
    return this.#nodes
  }

  /** What users do all the time, from now on. */
  beginLoad(): void {
    this.#api.tell('load')
  }

  /** Starts hollow nodes; they join when they do. */
  async join(count: number): Promise<void> {
    const numbers = Array.from({ length: count }, (_, index) => this.#nodes + 1 + index)
    const addresses = numbers.map((number) => `address add ${addressOf(number)}/32 dev lo`)
    await this.#hollow.exec(['ip', '-batch', '-'], { stdin: addresses.join('\n') })
    for (let from = 0; from < count; from += nodesPerProcess)
      this.#startProcess(numbers.slice(from, from + nodesPerProcess))
    this.#nodes += count
  }

  #startProcess(numbers: readonly number[]): void {
    const [first = 0] = numbers
    const path = `${logDirectory}/${this.#contestant}-hollow-${first}.log`
    const log = openSync(path, 'w')
    const running = this.#hollow.spawn(
      [
        ...[kubemark, '--bootstrap-kubeconfig=/run/bootstrap', '--directory=/tmp/nodes'],
        ...[`--addresses=${hollowAddresses}`, `--first=${first}`, `--count=${numbers.length}`],
      ],
      // Memory is what they may have, and processors what they should leave to the server.
      { stdio: ['ignore', log, log], env: { GOGC: '400' } },
    )
    closeSync(log)
    this.#stack.use(running)
    void running.ended.then(({ exitCode }) => {
      // Killed at the end, it has none.
      if (exitCode !== null)
        console.error(`hollow nodes ${first} and on have ended with ${exitCode}: ${path}`)
    })
  }

  /** Hollow nodes that are Ready. */
  async readyNodes(): Promise<number> {
    const table = await this.#get<{ rows?: readonly { cells: readonly unknown[] }[] }>(
      '/api/v1/nodes?labelSelector=hollow&includeObject=None',
      'application/json;as=Table;v=v1;g=meta.k8s.io',
    )
    return (table.rows ?? []).filter(({ cells }) => cells[1] === 'Ready').length
  }

  /** Deployments in a namespace of their own, whose pods run on hollow nodes alone. */
  async deploy(namespace: string, pods: number, podsPerDeployment: number): Promise<void> {
    const create = (path: string, object: object) => this.#post(path, object)
    await create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } })
    for (let left = pods, number = 1; left > 0; left -= podsPerDeployment, number++) {
      const replicas = Math.min(left, podsPerDeployment)
      const object = deployment(`d${number}`, replicas)
      await create(`/apis/apps/v1/namespaces/${namespace}/deployments`, object)
    }
  }

  /** Pods that Deployments say are available. */
  async availablePods(): Promise<number> {
    const { items } = await this.#get<{ items: readonly { status?: { availableReplicas?: number } }[] }>(
      '/apis/apps/v1/deployments?labelSelector=hollow',
    )
    return items.reduce((sum, { status }) => sum + (status?.availableReplicas ?? 0), 0)
  }

  /** The text of the API server's /metrics. */
  async metrics(): Promise<string> {
    return (await this.#ask({ path: '/metrics', accept: 'text/plain' })).body
  }

  /** What each part has, and has used until now. Processes that ended are not in it. */
  use(): Map<Part, Use> {
    const found = new Map<Part, Use>()
    for (const machine of [this.#cluster.machine, this.#hollow]) {
      for (const { pid, name, arguments: words } of processesOf(machine)) {
        const part = words.some((word) => word.endsWith('/lib/main.js'))
          ? 'daemon'
          : parts.find((one) => one === name)
        if (part === undefined) continue
        const { bytes, cpuMs } = found.get(part) ?? { bytes: 0, cpuMs: 0 }
        try {
          found.set(part, {
            bytes: bytes + memoryBytes(machine, pid),
            cpuMs: cpuMs + cpuTimeMs(machine, pid),
          })
        } catch {
          // It has ended.
        }
      }
    }
    return found
  }

  /** What the daemon says is not well, and how long it took to say so. */
  async status(): Promise<{ ms: number; problems: readonly string[] }> {
    const begun = performance.now()
    const { problems } = await this.#cluster.status()
    return { ms: performance.now() - begun, problems }
  }

  async #get<Type>(path: string, accept?: string): Promise<Type> {
    return JSON.parse((await this.#ask({ path, ...(accept !== undefined && { accept }) })).body) as Type
  }

  async #post(path: string, body: object): Promise<void> {
    await this.#ask({ method: 'POST', path, body })
  }

  /** Throws, too, when hollow nodes have ended by themselves. */
  async #ask(asked: Asked): Promise<Answer> {
    if (this.#ended !== undefined) throw new Error(this.#ended)
    const answer = await this.#api.ask(asked)
    if (answer.status >= 200 && answer.status < 300) return answer
    throw new Error(`${asked.method ?? 'GET'} ${asked.path}: ${answer.status}: ${answer.body.slice(0, 500)}`)
  }
}

/** The process in the machine that speaks to its API server. */
class Inside implements AsyncDisposable {
  readonly #running: Running
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #last = 0

  constructor(machine: Machine) {
    this.#running = machine.spawn(
      [process.execPath, `${import.meta.dirname}/inside.ts`, `${defaultDataDir}/admin.kubeconfig`],
      { stdio: ['pipe', 'pipe', 2] },
    )
    const { stdout } = this.#running.child
    if (stdout === null) throw new Error('bug: it has no output')
    createInterface(stdout).on('line', (line) => {
      const answer = JSON.parse(line) as Answer
      this.#waiting.get(answer.id ?? 0)?.(answer)
      this.#waiting.delete(answer.id ?? 0)
    })
  }

  tell(line: string): void {
    this.#running.child.stdin?.write(`${line}\n`)
  }

  ask(asked: Asked): Promise<Answer> {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`${asked.path}: no answer within ${requestTimeoutMs} ms`)),
        requestTimeoutMs,
      )
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer)
        resolve(answer)
      })
      this.tell(JSON.stringify({ ...asked, id }))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]()
  }
}

async function writeBootstrapKubeconfig(cluster: Cluster, hollow: Machine): Promise<void> {
  const made = await cluster.k8s(['token', 'create', '--ttl=6h', '-o', 'json'])
  const { token, server } = JSON.parse(made.stdout) as { token: string; server: string }
  const { id, secret } = parseToken(token)
  const { identity } = readKubeconfig(cluster.machine.read(`${defaultDataDir}/admin.kubeconfig`))
  const name = 'bootstrap'
  const kubeconfig = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name,
        cluster: { server, 'certificate-authority-data': Buffer.from(identity.ca).toString('base64') },
      },
    ],
    users: [{ name, user: { token: `${id}.${secret}` } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    'current-context': name,
  }
  writeFileSync(hollow.path('/run/bootstrap'), JSON.stringify(kubeconfig), { mode: 0o600 })
}

function addressOf(number: number): string {
  const [a, b, c = 0] = hollowAddresses.split('.').map(Number)
  return `${a}.${b}.${c + (number >> 8)}.${number & 255}`
}

function deployment(name: string, replicas: number): object {
  const labels = { hollow: 'true', app: name }
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, labels },
    spec: {
      replicas,
      progressDeadlineSeconds: 3600,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          nodeSelector: { hollow: 'true' },
          tolerations: [{ key: 'hollow', operator: 'Exists' }],
          containers: [
            { name: 'c', image: 'k8s.local/hollow', resources: { requests: { cpu: '10m', memory: '10Mi' } } },
          ],
        },
      },
    },
  }
}
