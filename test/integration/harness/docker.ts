import { readFileSync } from 'node:fs'
import http from 'node:http'
import { text } from 'node:stream/consumers'
import { type Machine, repository, type Running } from './machine.ts'
import { waitFor } from './wait.ts'

const dockerd = `${repository}/build/peers/dockerd`
const socket = '/run/docker.sock'
const cgroupDriver = 'cgroupfs'

/** A Docker Engine in a machine: upstream's dockerd, on containerd and runc from a directory of programs. */
export class Docker implements AsyncDisposable {
  readonly #machine: Machine
  readonly #bin: string
  readonly #flags: readonly string[]
  #running: Running | undefined

  constructor(machine: Machine, { bin, flags = [] }: { bin: string; flags?: readonly string[] }) {
    this.#machine = machine
    this.#bin = bin
    this.#flags = flags
  }

  /** Also again, after `kill`. */
  async start(): Promise<void> {
    const command = [
      ...[dockerd, `--host=unix://${socket}`, `--exec-opt=native.cgroupdriver=${cgroupDriver}`],
      // What serves it is a program of its own.
      '--userland-proxy=false',
      ...this.#flags,
    ]
    const shell = ['bash', '-c', 'exec "$@" >>/var/log/dockerd.log 2>&1', 'dockerd', ...command]
    this.#running = this.#machine.spawn(shell, {
      env: { PATH: `${this.#bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin` },
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    try {
      await waitFor('dockerd answers', async () => {
        const answer = await this.request('GET', '/_ping').catch(() => undefined)
        return answer?.status === 200
      })
    } catch (error) {
      throw new Error(`${String(error)}\n${this.#machine.read('/var/log/dockerd.log')}`, { cause: error })
    }
  }

  async kill(): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]()
  }

  /** As `docker load` of an archive on the host. */
  async load(archive: string): Promise<void> {
    const { status, body } = await this.request('POST', '/images/load', readFileSync(archive))
    if (status !== 200 || !body.includes('Loaded image')) throw new Error(`cannot load ${archive}: ${body}`)
  }

  /** The containers that run; with their names and labels. */
  async containers(): Promise<Container[]> {
    return JSON.parse((await this.request('GET', '/containers/json')).body) as Container[]
  }

  /** As `docker run --detach --name NAME`. */
  async run(name: string, image: string, { hostConfig, ...config }: ContainerConfig): Promise<void> {
    const sent = Buffer.from(JSON.stringify({ ...config, Image: image, HostConfig: hostConfig }))
    const created = await this.request('POST', `/containers/create?name=${name}`, sent, 'application/json')
    if (created.status !== 201) throw new Error(`cannot create ${name}: ${created.body}`)
    const { status, body } = await this.request('POST', `/containers/${name}/start`)
    if (status !== 204) throw new Error(`cannot start ${name}: ${body}`)
  }

  async logs(name: string): Promise<string> {
    return (await this.request('GET', `/containers/${name}/logs?stdout=1&stderr=1`)).body
  }

  async request(method: 'GET' | 'POST' | 'DELETE', path: string, sent?: Buffer, type = 'application/x-tar') {
    const headers = sent === undefined ? {} : { 'content-type': type, 'content-length': sent.length }
    const options = { socketPath: this.#machine.path(socket), method, path, headers, agent: false }
    return new Promise<{ status: number; body: string }>((resolve, reject) => {
      const asked = http.request(options, (answer) => {
        text(answer).then((body) => resolve({ status: answer.statusCode ?? 0, body }), reject)
      })
      asked.on('error', reject)
      asked.end(sent)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}

/** As Docker's API has it. */
interface ContainerConfig {
  readonly Cmd: readonly string[]
  readonly Env?: readonly string[]
  readonly hostConfig: Readonly<Record<string, unknown>>
}

export interface Container {
  readonly Id: string
  readonly Names: readonly string[]
  readonly Labels: Readonly<Record<string, string>>
}
