import * as grpc from '@grpc/grpc-js'
import { fieldsOf, message } from './wire.ts'

const everyKeyBelow = (prefix: string): Record<number, string> => ({
  1: prefix,
  2: `${prefix.slice(0, -1)}${String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)}`,
})

/** A few requests of etcd's clients in their own words, with plain values in and out. */
export class EtcdClient {
  readonly #client: grpc.Client

  constructor(listening: string) {
    const address = listening.replace(/^http:\/\//, '').replace(/^unix:\/\//, 'unix:')
    this.#client = new grpc.Client(address, grpc.credentials.createInsecure())
  }

  close(): void {
    this.#client.close()
  }

  /** Returns the revision of the write. */
  async put(key: string, value: Uint8Array, lease = 0): Promise<number> {
    return revisionOf(
      await this.call('KV/Put', message({ 1: key, 2: value, ...(lease !== 0 && { 3: lease }) })),
    )
  }

  async delete(key: string): Promise<number> {
    return revisionOf(await this.call('KV/DeleteRange', message({ 1: key })))
  }

  async get(key: string): Promise<Buffer | undefined> {
    const [keyValue] = (fieldsOf(await this.call('KV/Range', message({ 1: key }))).get(2) ?? []) as Buffer[]
    return keyValue === undefined ? undefined : (fieldsOf(keyValue).get(5)?.[0] as Buffer)
  }

  async count(prefix: string): Promise<{ count: number; revision: number }> {
    const reply = await this.call('KV/Range', message({ ...everyKeyBelow(prefix), 9: 1 }))
    return { count: Number(fieldsOf(reply).get(4)?.[0] ?? 0), revision: revisionOf(reply) }
  }

  async revision(): Promise<number> {
    return revisionOf(await this.call('KV/Range', message({ 1: 'x' })))
  }

  async compact(revision: number): Promise<void> {
    await this.call('KV/Compact', message({ 1: revision, 2: 1 }))
  }

  /** The types of the alarms that are set. */
  async alarms(): Promise<number[]> {
    const alarms = (fieldsOf(await this.call('Maintenance/Alarm', message({}))).get(2) ?? []) as Buffer[]
    return alarms.map((alarm) => Number(fieldsOf(alarm).get(2)?.[0] ?? 0))
  }

  async disarm(): Promise<void> {
    await this.call('Maintenance/Alarm', message({ 1: 2, 3: 1 }))
  }

  /** Watches a prefix from now on: the revisions of its events, as they come. */
  async watch(prefix: string): Promise<number[]> {
    const revisions: number[] = []
    const created = Promise.withResolvers<void>()
    const stream = this.#client.makeBidiStreamRequest('/etcdserverpb.Watch/Watch', toBytes, toBytes)
    stream.write(message({ 1: message(everyKeyBelow(prefix)) }))
    stream.on('error', () => undefined)
    stream.on('data', (response: Buffer) => {
      created.resolve()
      for (const event of (fieldsOf(response).get(11) ?? []) as Buffer[]) {
        const keyValue = fieldsOf(event).get(2)?.[0] as Buffer
        revisions.push(Number(fieldsOf(keyValue).get(3)?.[0]))
      }
    })
    await created.promise
    return revisions
  }

  call(method: string, request: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const path = `/etcdserverpb.${method}`
      this.#client.makeUnaryRequest(path, toBytes, toBytes, request, (error, reply) => {
        if (error === null && reply !== undefined) resolve(reply)
        else reject(error ?? new Error('no reply'))
      })
    })
  }
}

function revisionOf(response: Buffer): number {
  const header = fieldsOf(response).get(1)?.[0] as Buffer
  return Number(fieldsOf(header).get(3)?.[0] ?? 0)
}

function toBytes(bytes: Buffer): Buffer {
  return bytes
}
