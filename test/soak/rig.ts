import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { addTestImage, Cluster, defaultDataDir } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine } from '../integration/harness/machine.ts'
import { processNames, signalNamed } from '../integration/harness/processes.ts'
import { startTrafficOn, type Traffic } from '../integration/harness/traffic.ts'
import { describeFault, type Fault, type FaultKind } from './faults.ts'
import type { Period } from './report.ts'

type JoiningRole = 'server' | 'agent'

const tokenFile = '/run/join-token'
/** Of a server that was there before. */
const serverFlags = ['--server-mode=ha']
const agentFlags = ['agent']

/** Servers that share a cluster, and agents, on one network, from the built artifact, with what breaks them. */
export class Rig implements AsyncDisposable {
  readonly lan: Lan
  readonly servers: Cluster[] = []
  readonly agents: Cluster[] = []
  readonly addresses = new Map<Cluster, string>()
  readonly #name: string

  private constructor(name: string, lan: Lan) {
    this.#name = name
    this.lan = lan
  }

  /** All are Ready when it resolves. Names begin with `name`. */
  static async create(given: { name: string; servers: number; agents: number }): Promise<Rig> {
    const { name, servers, agents } = given
    const rig = new Rig(name, await Lan.create())
    try {
      for (let count = 0; count < servers; count++) await rig.#addMachine('server')
      for (let count = 0; count < agents; count++) await rig.#addMachine('agent')
      await rig.#start()
      return rig
    } catch (error) {
      const report = await rig.report()
      await rig[Symbol.asyncDispose]()
      throw new Error(`cannot start the cluster ${name}\n${report}`, { cause: error })
    }
  }

  get nodes(): Cluster[] {
    return [...this.servers, ...this.agents]
  }

  /** The server at a place. */
  server(index: number): Cluster {
    const server = this.servers[index]
    if (server === undefined) throw new Error(`bug: there is no server ${index}`)
    return server
  }

  url(server: Cluster): string {
    return `https://${this.addresses.get(server)}:6443`
  }

  startTraffic(): Traffic {
    return startTrafficOn(this.lan, {
      kubeconfig: this.server(0).machine.path(`${defaultDataDir}/admin.kubeconfig`),
      urls: this.servers.map((server) => this.url(server)),
    })
  }

  /** A further machine joins by a server, with a token of now; to be waited for. */
  async add(role: JoiningRole, by: Cluster): Promise<Cluster> {
    const node = await this.#addMachine(role)
    await this.#join([node], role, by)
    return node
  }

  /** Starts the daemon of one that has joined. */
  restart(node: Cluster): void {
    node.startDaemon({ flags: this.agents.includes(node) ? agentFlags : serverFlags })
  }

  async stop(node: Cluster): Promise<void> {
    await node.k8s(['stop'])
    await node.daemon.ended
  }

  /** Until all components of all nodes are ready, and their Nodes. */
  async ready(): Promise<void> {
    for (const node of this.nodes) await node.ready()
  }

  async begin({ kind, servers }: Fault): Promise<void> {
    await Promise.all(servers.map((index) => doings[kind].begin(this, this.server(index))))
  }

  async end({ kind, servers }: Fault): Promise<void> {
    await Promise.all(servers.map((index) => doings[kind].end(this, this.server(index))))
  }

  /** Lets servers fail for a while, and waits until all is well again. */
  async inject(fault: Fault): Promise<Period> {
    const startMs = Date.now()
    await this.begin(fault)
    await sleep(fault.holdMs)
    await this.end(fault)
    const healedMs = Date.now()
    try {
      await this.ready()
    } catch (cause) {
      throw new Error(`it is not over: ${describeFault(fault)}`, { cause })
    }
    const recoveryMs = Date.now() - healedMs
    await sleep(fault.calmMs)
    return { title: describeFault(fault), startMs, endMs: Date.now(), recoveryMs }
  }

  /** What one would look at first, of each node. */
  async report(): Promise<string> {
    const reports = await Promise.all(this.nodes.map((node) => node.report().catch(String)))
    return reports.map((report, index) => `--- ${this.nodes[index]?.machine.id}\n${report}`).join('\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()))
    await this.lan[Symbol.asyncDispose]()
  }

  async #start(): Promise<void> {
    const [first, ...others] = this.servers
    if (first === undefined) throw new Error('bug: a cluster has servers')
    first.startDaemon({ flags: [...serverFlags, '--cluster-init'] })
    await first.ready()
    await this.#join(others, 'server', first)
    await this.#join(this.agents, 'agent', first)
    await this.ready()
    await first.waitFor('pods are admitted', () => first.get('serviceaccount', 'default'))
  }

  /** A further machine on the network, with nothing on it. */
  async #addMachine(role: JoiningRole): Promise<Cluster> {
    const machines = role === 'server' ? this.servers : this.agents
    const machine = await Machine.create({ name: `${this.#name}-${role[0]}${machines.length + 1}` })
    const cluster = new Cluster(machine, {})
    machines.push(cluster)
    this.addresses.set(cluster, await this.lan.join(machine))
    addTestImage(machine)
    return cluster
  }

  /** Starts those that are to join by a server. */
  async #join(nodes: readonly Cluster[], role: JoiningRole, by: Cluster): Promise<void> {
    if (nodes.length === 0) return
    const { stdout: token } = await by.k8s(['token', 'create', `--role=${role}`])
    const flags = role === 'server' ? serverFlags : agentFlags
    for (const node of nodes) {
      writeFileSync(node.machine.path(tokenFile), token, { mode: 0o600 })
      node.startDaemon({ flags: [...flags, `--server=${this.url(by)}`, `--token-file=${tokenFile}`] })
    }
  }
}

type Deed = (rig: Rig, server: Cluster) => Promise<void>

interface Doing {
  readonly begin: Deed
  readonly end: Deed
}

const nothing = () => Promise.resolve()

/** What each fault is. */
const doings: Readonly<Record<FaultKind, Doing>> = {
  'kill-etcd': { begin: (_, { machine }) => signalNamed(machine, 'SIGKILL', ['etcd']), end: nothing },
  'kill-apiserver': {
    begin: (_, { machine }) => signalNamed(machine, 'SIGKILL', ['kube-apiserver']),
    end: nothing,
  },
  'kill-daemon': { begin: (_, server) => killDaemon(server), end: restart },
  crash: { begin: (_, server) => crash(server), end: restart },
  'hang-etcd': hanging('etcd'),
  'hang-apiserver': hanging('kube-apiserver'),
  'hang-daemon': {
    begin: (_, { daemon }) => Promise.resolve(daemon.signal('SIGSTOP')),
    end: (_, { daemon }) => Promise.resolve(daemon.signal('SIGCONT')),
  },
  cut: { begin: ({ lan }, { machine }) => lan.cut(machine), end: heal },
  'cut-in': { begin: ({ lan }, { machine }) => lan.cutOneWay(machine, 'to'), end: heal },
  'cut-out': { begin: ({ lan }, { machine }) => lan.cutOneWay(machine, 'from'), end: heal },
  stop: { begin: (rig, server) => rig.stop(server), end: restart },
  'cut-majority': { begin: ({ lan }, { machine }) => lan.cut(machine), end: heal },
  'crash-majority': { begin: (_, server) => crash(server), end: restart },
}

function hanging(name: string): Doing {
  return {
    begin: (_, { machine }) => signalNamed(machine, 'SIGSTOP', [name]),
    // The daemon may have killed it meanwhile, and started another.
    end: (_, { machine }) => signalNamed(machine, 'SIGCONT', [name]),
  }
}

async function killDaemon({ daemon }: Cluster): Promise<void> {
  await daemon.stop('SIGKILL')
}

/** As when the power fails, but for the pods. */
async function crash(server: Cluster): Promise<void> {
  await killDaemon(server)
  await signalNamed(server.machine, 'SIGKILL', ['etcd', ...processNames])
}

function restart(rig: Rig, server: Cluster): Promise<void> {
  return Promise.resolve(rig.restart(server))
}

function heal({ lan }: Rig, { machine }: Cluster): Promise<void> {
  return lan.heal(machine)
}
