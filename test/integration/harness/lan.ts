import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { runCommand } from '../../../src/supervisor/spawn.ts'
import type { Machine } from './machine.ts'

/*
 * One network for several machines, of namespaces as they are:
 *
 *    machine  eth0 10.89.0.2 ──veth── port2 ┐
 *    machine  eth0 10.89.0.3 ──veth── port3 ┼─ bridge lan, 10.89.0.1, in a network namespace of its own
 *    ...                                    ┘
 *
 * The bridge is every machine's default route, and leads nowhere else.
 */

const subnet = '10.89.0'
const prefixLength = 24
const firstHost = 2
const commandTimeoutMs = 10_000

export class Lan implements AsyncDisposable {
  readonly #holder: ChildProcess
  readonly #pid: number
  readonly #hosts = new Map<Machine, number>()

  private constructor(holder: ChildProcess, pid: number) {
    this.#holder = holder
    this.#pid = pid
  }

  static async create(): Promise<Lan> {
    const script = [
      'ip link set lo up',
      'ip link add lan type bridge',
      `ip address add ${subnet}.1/${prefixLength} dev lan`,
      'ip link set lan up',
      'echo $$',
      // Lives as long as its stdin is open, also when the runner is killed.
      'while read -r; do :; done',
    ]
    const holder = spawn('unshare', ['--net', '/bin/bash', '-e', '-c', script.join('\n')], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    })
    const ended = once(holder, 'exit').then(() =>
      Promise.reject(new Error('cannot make a network of machines')),
    )
    const [pid] = (await Promise.race([once(createInterface(holder.stdout!), 'line'), ended])) as [string]
    ended.catch(() => {})
    return new Lan(holder, Number(pid))
  }

  /** Gives a machine its address on this network in place of the one that leads nowhere; before its daemon starts. */
  async join(machine: Machine): Promise<string> {
    const host = firstHost + this.#hosts.size
    const address = `${subnet}.${host}`
    const port = `port${host}`
    await machine.exec(['ip', 'link', 'delete', 'eth0'])
    await this.exec([
      'ip',
      'link',
      'add',
      port,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      String(machine.initPid),
    ])
    await this.exec(['ip', 'link', 'set', port, 'master', 'lan', 'up'])
    await machine.exec(['ip', 'address', 'add', `${address}/${prefixLength}`, 'dev', 'eth0'])
    await machine.exec(['ip', 'link', 'set', 'eth0', 'up'])
    await machine.exec(['ip', 'route', 'add', 'default', 'via', `${subnet}.1`])
    await machine.exec(['bash', '-c', `echo nameserver ${address} >/etc/resolv.conf`])
    this.#hosts.set(machine, host)
    return address
  }

  /** Nothing passes to or from this machine any more; its own end of the link stays up, as when a switch fails. */
  async cut(machine: Machine): Promise<void> {
    await this.exec(['ip', 'link', 'set', this.#portOf(machine), 'nomaster'])
  }

  async heal(machine: Machine): Promise<void> {
    await this.exec(['ip', 'link', 'set', this.#portOf(machine), 'master', 'lan'])
  }

  /** Runs a command where the bridge is: one-way faults are rules of nft's family bridge there. */
  async exec(command: readonly string[]): Promise<string> {
    const { stdout } = await runCommand({
      command: 'nsenter',
      args: ['--target', String(this.#pid), '--net', '--', ...command],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      timeoutMs: commandTimeoutMs,
    })
    return stdout
  }

  #portOf(machine: Machine): string {
    const host = this.#hosts.get(machine)
    if (host === undefined) throw new Error(`${machine.id} is not on this network`)
    return `port${host}`
  }

  /** The links go with the namespace. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return
    const closed = once(this.#holder, 'exit')
    this.#holder.stdin?.end()
    await closed
  }
}
