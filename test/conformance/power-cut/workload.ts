import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { message } from '../../unit/datastore/support.ts'
import { fieldsOf, type RawClient } from '../../unit/datastore/support.ts'

export const paths = {
  put: '/etcdserverpb.KV/Put',
  range: '/etcdserverpb.KV/Range',
  txn: '/etcdserverpb.KV/Txn',
  compact: '/etcdserverpb.KV/Compact',
  watch: '/etcdserverpb.Watch/Watch',
  grant: '/etcdserverpb.Lease/LeaseGrant',
  leases: '/etcdserverpb.Lease/LeaseLeases',
} as const

/** One transaction of the workload: what it puts and deletes. Its number is in each value that it puts. */
export interface Write {
  readonly number: number
  readonly puts: readonly string[]
  readonly deletes: readonly string[]
}

/** What was acknowledged, with the size of the recording when that was known. */
export interface Acknowledged {
  readonly writes: { readonly write: Write; readonly revision: number; readonly position: number }[]
  readonly compactions: { readonly revision: number; readonly position: number }[]
  readonly leases: { readonly id: number; readonly position: number }[]
}

/** Every tenth write is large, so that checkpoints come often. */
export function valueOf(number: number): string {
  return `${number}:`.padEnd(number % 10 === 0 ? 60_000 : 20 + ((number * 37) % 3000), 'x')
}

export function writeOf(number: number): Write {
  const group = `t${number % 7}`
  if (number % 3 === 0) return { number, puts: [`${group}/a`, `${group}/b`, `${group}/c`], deletes: [] }
  if (number % 5 === 0) return { number, puts: [`deleted/${number % 4}`], deletes: [`k${number % 20}`] }
  return { number, puts: [`k${number % 20}`], deletes: [] }
}

/** Makes writes, some of them at the same time, and notes those that are acknowledged. */
export class Workload {
  readonly acknowledged: Acknowledged = { writes: [], compactions: [], leases: [] }
  readonly #recording: string
  #number = 0
  #isCutOff = false

  constructor(recording: string) {
    this.#recording = recording
  }

  /** Writes that fail, because the server was killed, are of no interest. */
  async write(client: RawClient, count: number): Promise<void> {
    const writer = async (): Promise<void> => {
      while (this.#number < end) await this.#write(client, writeOf(++this.#number))
    }
    const end = this.#number + count
    await Promise.allSettled([writer(), writer(), writer(), writer()])
  }

  /** From here on the replies to writes are lost on their way, until `saw` tells what came of them. */
  cutOff(): void {
    this.#isCutOff = true
  }

  /**
   * Notes what a client has read. That must stay as what was acknowledged must: also the writes that were on disk
   * before anybody had a reply.
   */
  saw(writes: ReadonlyMap<number, Write>): void {
    this.#isCutOff = false
    const position = this.#position
    const known = new Set(this.acknowledged.writes.map(({ revision }) => revision))
    for (const [revision, write] of writes) {
      if (!known.has(revision)) this.acknowledged.writes.push({ write, revision, position })
    }
  }

  async compact(client: RawClient): Promise<void> {
    const revision = Math.max(...this.acknowledged.writes.map((write) => write.revision)) - 5
    await client.unary(paths.compact, message({ 1: revision }))
    this.acknowledged.compactions.push({ revision, position: this.#position })
  }

  async grant(client: RawClient, id: number): Promise<void> {
    await client.unary(paths.grant, message({ 1: 10_000, 2: id }))
    this.acknowledged.leases.push({ id, position: this.#position })
  }

  get #position(): number {
    return statSync(this.#recording).size
  }

  async #write(client: RawClient, write: Write): Promise<void> {
    const value = valueOf(write.number)
    const operations = [
      ...write.puts.map((key) => message({ 2: message({ 1: key, 2: value }) })),
      ...write.deletes.map((key) => message({ 3: message({ 1: key }) })),
    ]
    const request = Buffer.concat(operations.map((operation) => message({ 2: operation })))
    const revision = revisionOf(await client.unary(paths.txn, request))
    if (this.#isCutOff) return
    this.acknowledged.writes.push({ write, revision, position: this.#position })
  }
}

/** The revision in a response's header. */
export function revisionOf(response: Buffer): number {
  const [header = Buffer.alloc(0)] = fieldsOf(response).get(1) as Buffer[]
  return Number((fieldsOf(header).get(3) as bigint[] | undefined)?.[0] ?? 0n)
}

/** A server with a library before libc, the address that it names, and what it says of errors. */
export async function startPreloaded(options: {
  command: string
  library: string
  directory: string
  env: Readonly<Record<string, string>>
}): Promise<{ process: ChildProcess; listening: string; errors: () => string }> {
  const [program = '', ...args] = options.command.split(' ')
  const child = spawn(program, [...args, '--data-dir', `${options.directory}/data`], {
    env: { ...process.env, ...options.env, LD_PRELOAD: options.library },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk))
  let output = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) {
    output += String(chunk)
    const listening = /serving on (\S+)/.exec(output)?.[1]
    if (listening !== undefined) return { process: child, listening, errors: () => errors }
  }
  throw new Error(`the server ended at its start: ${output}${errors}`)
}

export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}
