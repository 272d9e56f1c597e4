import { runCommand } from '../supervisor/spawn.ts'
import { hostEnvironment } from './machine.ts'

/*
 * One network for several machines, of namespaces as they are:
 *
 *    machine  eth0 SUBNET.2 ──veth── port2 ┐
 *    machine  eth0 SUBNET.3 ──veth── port3 ┼─ bridge lan, SUBNET.1, in a network namespace of its own
 *    ...                                   ┘
 *
 * The bridge is every machine's default route, and leads nowhere else. `plugSix` adds the same of IPv6: fd00:89::2, fd00:89::3, ...
 */

export const prefixLength = 24
const subnetSix = 'fd00:89::'
const prefixLengthSix = 64
/** Of the machines; the bridge has the one before. */
export const firstHost = 2
const commandTimeoutMs = 10_000

/** What keeps the namespace, for bash: prints "ready PID" and lives as long as its stdin is open. */
export function lanScript(subnet: string): string {
  return [
    'set -e',
    'ip link set lo up',
    'ip link add lan type bridge',
    `ip address add ${subnet}.1/${prefixLength} dev lan`,
    'ip link set lan up',
    'echo "ready $$"',
    'while read -r; do :; done',
  ].join('\n')
}

/** A network that is there. Machines are known by the last part of their address. */
export class Lan {
  /** Of the process that keeps the namespace. */
  readonly pid: number
  /** 10.89.0 */
  readonly subnet: string

  constructor({ pid, subnet }: { pid: number; subnet: string }) {
    this.pid = pid
    this.subnet = subnet
  }

  address(host: number): string {
    return `${this.subnet}.${host}`
  }

  /** Gives a machine its address on this network in place of the one that leads nowhere; before its daemon starts. */
  async plug(machinePid: number, host: number): Promise<void> {
    const inside = (command: readonly string[]) => inNamespacesOf(machinePid, ['--mount', '--net'], command)
    await inside(['ip', 'link', 'delete', 'eth0'])
    await this.link(host, { name: 'eth0', pid: machinePid })
    await inside(['ip', 'address', 'add', `${this.address(host)}/${prefixLength}`, 'dev', 'eth0'])
    await inside(['ip', 'link', 'set', 'eth0', 'up'])
    await inside(['ip', 'route', 'add', 'default', 'via', this.address(1)])
    await inside(['sh', '-c', `echo nameserver ${this.address(host)} >/etc/resolv.conf`])
  }

  addressSix(host: number): string {
    return `${subnetSix}${host}`
  }

  /** Gives a machine that is on this network an address of IPv6 beside the other one. Repeatable. */
  async plugSix(machinePid: number, host: number): Promise<void> {
    // At once, without looking whether another machine has it.
    const give = (which: number, device: string) => [
      ...['ip', '-6', 'address', 'replace', `${this.addressSix(which)}/${prefixLengthSix}`],
      ...['dev', device, 'nodad'],
    ]
    await this.exec(give(1, 'lan'))
    const inside = (command: readonly string[]) => inNamespacesOf(machinePid, ['--mount', '--net'], command)
    await inside(give(host, 'eth0'))
    await inside(['ip', '-6', 'route', 'replace', 'default', 'via', this.addressSix(1), 'dev', 'eth0'])
  }

  /** A cable from a port of the bridge to the network namespace of a process. */
  async link(host: number, { name, pid }: { name: string; pid: number }): Promise<void> {
    const peer = ['type', 'veth', 'peer', 'name', name, 'netns', String(pid)]
    await this.exec(['ip', 'link', 'add', portOf(host), ...peer])
    await this.heal(host)
    await this.exec(['ip', 'link', 'set', portOf(host), 'up'])
  }

  /** Nothing passes to or from this machine any more; its own end of the link stays up, as when a switch fails. Repeatable. */
  async cut(host: number): Promise<void> {
    await this.exec(['ip', 'link', 'set', portOf(host), 'nomaster'])
  }

  /** Repeatable. */
  async heal(host: number): Promise<void> {
    await this.exec(['ip', 'link', 'set', portOf(host), 'master', 'lan'])
  }

  /** Runs a command where the bridge is: one-way faults are rules of nft's family bridge there. */
  exec(command: readonly string[]): Promise<string> {
    return inNamespacesOf(this.pid, ['--net'], command)
  }
}

/** Of the bridge, to which a machine is connected. */
export function portOf(host: number): string {
  return `port${host}`
}

async function inNamespacesOf(
  pid: number,
  namespaces: readonly string[],
  command: readonly string[],
): Promise<string> {
  const { stdout } = await runCommand({
    command: 'nsenter',
    args: ['--target', String(pid), ...namespaces, '--', ...command],
    env: hostEnvironment,
    timeoutMs: commandTimeoutMs,
  })
  return stdout
}
