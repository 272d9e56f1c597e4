import { mkdirSync, writeFileSync } from 'node:fs'
import { testAuthority } from '../../unit/datastore/test-certificates.ts'
import { type ExecResult, type Machine, repository, type Running } from './machine.ts'

const program = `${repository}/build/peers/etcd`
const directory = '/var/lib/etcd'

/** Members of an etcd of its own in a machine: clients at 2379, 2479, ... of one address, and with certificates alone. */
export class EtcdCluster implements AsyncDisposable {
  readonly #machine: Machine
  readonly #address: string
  readonly #files: Readonly<Record<string, string>>
  readonly #members: (Running | undefined)[]

  constructor(machine: Machine, size: number, address = '127.0.0.1') {
    this.#machine = machine
    this.#address = address
    this.#members = Array.from({ length: size }, () => undefined)
    const authority = testAuthority('etcd')
    const server = authority.issue({ usage: 'server', names: ['localhost'], addresses: [address] })
    const client = authority.issue({ usage: 'client' })
    this.#files = { 'ca.crt': authority.cert, 'client.crt': client.cert, 'client.key': client.key }
    this.giveFiles(machine, { 'server.crt': server.cert, 'server.key': server.key })
  }

  /** What `flags` name. */
  giveFiles(machine: Machine, more: Readonly<Record<string, string>> = {}): void {
    mkdirSync(machine.path(directory), { recursive: true })
    for (const [name, text] of Object.entries({ ...this.#files, ...more }))
      writeFileSync(machine.path(`${directory}/${name}`), text)
  }

  get endpoints(): string[] {
    return this.#members.map((_, index) => this.endpoint(index))
  }

  endpoint(index: number): string {
    return `https://${this.#address}:${clientPort(index)}`
  }

  /** By which k8s uses it. */
  get flags(): string[] {
    return [
      `--etcd-endpoints=${this.endpoints.join(',')}`,
      `--etcd-ca-file=${directory}/ca.crt`,
      `--etcd-cert-file=${directory}/client.crt`,
      `--etcd-key-file=${directory}/client.key`,
    ]
  }

  start(...indexes: number[]): void {
    for (const index of indexes) this.#members[index] = this.#startOne(index)
  }

  startAll(): void {
    this.start(...this.#members.keys())
  }

  /** Signals a member; waits for the end of one that is killed. */
  async signal(index: number, signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    const member = this.#members[index]
    member?.kill(signal)
    if (signal === 'SIGKILL') await member?.ended
  }

  /** As a member does whose quota is reached. */
  async raiseNoSpace(): Promise<void> {
    const { stdout } = await this.#ctl(['endpoint', 'status', '-w', 'json'])
    // A number that JavaScript would round.
    const memberId = /"member_id":(\d+)/.exec(stdout)?.[1]
    // ACTIVATE, by the JSON gateway: etcdctl lowers alarms only.
    const body = JSON.stringify({
      action: 'ACTIVATE',
      memberID: memberId,
      alarm: 'NOSPACE',
    })
    const files = [
      '--cacert',
      `${directory}/ca.crt`,
      '--cert',
      `${directory}/client.crt`,
      '--key',
      `${directory}/client.key`,
    ]
    await this.#machine.exec([
      'curl',
      '-sf',
      ...files,
      '-d',
      body,
      `${this.endpoints[0]}/v3/maintenance/alarm`,
    ])
  }

  async put(key: string, value: string): Promise<void> {
    await this.#ctl(['put', key, value])
  }

  async forget(key: string): Promise<void> {
    await this.#ctl(['del', key])
  }

  #ctl(command: readonly string[]): Promise<ExecResult> {
    const files = [
      `--cacert=${directory}/ca.crt`,
      `--cert=${directory}/client.crt`,
      `--key=${directory}/client.key`,
    ]
    return this.#machine.exec([`${program}ctl`, `--endpoints=${this.endpoints[0]}`, ...files, ...command])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.#members) await member?.[Symbol.asyncDispose]()
  }

  #startOne(index: number): Running {
    const peer = (at: number) => `http://127.0.0.1:${clientPort(at) + 1}`
    const client = this.endpoint(index)
    return this.#machine.spawn(
      [
        program,
        ...[`--name=m${index}`, `--data-dir=${directory}/m${index}`, '--log-level=error'],
        ...[`--listen-client-urls=${client}`, `--advertise-client-urls=${client}`],
        ...[`--listen-peer-urls=${peer(index)}`, `--initial-advertise-peer-urls=${peer(index)}`],
        `--initial-cluster=${this.#members.map((_, at) => `m${at}=${peer(at)}`).join(',')}`,
        ...[`--cert-file=${directory}/server.crt`, `--key-file=${directory}/server.key`],
        // Its JSON gateway is a client of its own server.
        ...[`--client-cert-file=${directory}/client.crt`, `--client-key-file=${directory}/client.key`],
        ...['--client-cert-auth', `--trusted-ca-file=${directory}/ca.crt`],
      ],
      { stdio: ['ignore', 'ignore', 'ignore'] },
    )
  }
}

function clientPort(index: number): number {
  return 2379 + 100 * index
}
