import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { firstHost, Lan as Network, lanScript, portOf } from '../../../src/lab/lan.ts'
import type { Machine } from './machine.ts'

/** machine.sh's own, so that the first machine keeps its address. */
const subnet = '10.89.0'

function tableOf(host: number): string {
  return `cut${host}`
}

/** The network of a lab for machines of tests; it ends, and all of it goes, when it is disposed of or when the runner dies. */
export class Lan implements AsyncDisposable {
  readonly #holder: ChildProcess
  readonly #network: Network
  readonly #hosts = new Map<Machine, number>()

  private constructor(holder: ChildProcess, pid: number) {
    this.#holder = holder
    this.#network = new Network({ pid, subnet })
  }

  static async create(): Promise<Lan> {
    const holder = spawn('unshare', ['--net', '/bin/bash', '-c', lanScript(subnet)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    })
    const ended = once(holder, 'exit').then(() =>
      Promise.reject(new Error('cannot make a network of machines')),
    )
    const [line] = (await Promise.race([once(createInterface(holder.stdout), 'line'), ended])) as [string]
    ended.catch(() => {})
    return new Lan(holder, Number(line.split(' ')[1]))
  }

  /** Gives a machine its address on this network in place of the one that leads nowhere; before its daemon starts. */
  async join(machine: Machine): Promise<string> {
    const host = firstHost + this.#hosts.size
    await this.#network.plug(machine.initPid, host)
    this.#hosts.set(machine, host)
    return this.#network.address(host)
  }

  /** Gives a machine that has joined an address of IPv6, too. */
  async joinSix(machine: Machine): Promise<string> {
    const host = this.#hostOf(machine)
    await this.#network.plugSix(machine.initPid, host)
    return this.#network.addressSix(host)
  }

  /** Nothing passes to or from this machine any more; its own end of the link stays up, as when a switch fails. */
  cut(machine: Machine): Promise<void> {
    return this.#network.cut(this.#hostOf(machine))
  }

  /** Nothing passes to this machine any more, or from it, while the other way is open. */
  async cutOneWay(machine: Machine, way: 'to' | 'from'): Promise<void> {
    const host = this.#hostOf(machine)
    const hooks = way === 'to' ? ['forward', 'output'] : ['forward', 'input']
    const chains = hooks.map(
      (hook) =>
        `chain ${hook} { type filter hook ${hook} priority 0; ${way === 'to' ? 'oifname' : 'iifname'} "${portOf(host)}" drop\n}`,
    )
    await this.exec(['nft', `table bridge ${tableOf(host)} {\n${chains.join('\n')}\n}`])
  }

  /** Repeatable. */
  async heal(machine: Machine): Promise<void> {
    const host = this.#hostOf(machine)
    await this.#network.heal(host)
    const table = `table bridge ${tableOf(host)}`
    // One that is not there cannot be deleted.
    await this.exec(['nft', `add ${table}; delete ${table}`])
  }

  /** Runs a command where the bridge is: one-way faults are rules of nft's family bridge there. */
  exec(command: readonly string[]): Promise<string> {
    return this.#network.exec(command)
  }

  /** Of the process in whose network namespace the bridge is: whoever enters that is a machine's neighbour. */
  get networkPid(): number {
    return this.#network.pid
  }

  #hostOf(machine: Machine): number {
    const host = this.#hosts.get(machine)
    if (host === undefined) throw new Error(`${machine.id} is not on this network`)
    return host
  }

  /** The links go with the namespace. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return
    const closed = once(this.#holder, 'exit')
    this.#holder.stdin?.end()
    await closed
  }
}
