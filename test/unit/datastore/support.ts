import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { onTestFinished } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { type Datastore, type DatastoreSettings, startDatastore } from '../../../src/datastore/datastore.ts'

export { type Fields, fieldsOf, message } from './wire.ts'

export const workerUrl = new URL('../../../src/datastore/worker.ts', import.meta.url)

/** An empty directory that goes with the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-datastore-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A datastore that ends with the test. */
export async function runDatastore(
  settings: Partial<DatastoreSettings> & { path: string; log?: Logger },
): Promise<Datastore> {
  const datastore = await startDatastore({
    listen: { host: '127.0.0.1', port: 0 },
    workerUrl,
    log: silentLogger,
    ...settings,
  })
  onTestFinished(() => datastore.stop())
  return datastore
}

/** A client of grpc-js's, which sends and returns the bytes of messages. */
export class RawClient {
  readonly #client: grpc.Client

  constructor(listening: string, options: grpc.ClientOptions = {}) {
    const address = listening.replace(/^http:\/\//, '').replace(/^unix:\/\//, 'unix:')
    this.#client = new grpc.Client(address, grpc.credentials.createInsecure(), options)
    onTestFinished(() => this.#client.close())
  }

  unary(path: string, request: Uint8Array): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(path, toBytes, toBytes, Buffer.from(request), (error, reply) => {
        if (error === null && reply !== undefined) resolve(reply)
        else reject(error ?? new Error('no reply'))
      })
    })
  }

  stream(path: string): grpc.ClientDuplexStream<Buffer, Buffer> {
    return this.#client.makeBidiStreamRequest(path, toBytes, toBytes)
  }

  /** All messages of a call with one request. */
  async collect(path: string, request: Uint8Array): Promise<Buffer[]> {
    const replies: Buffer[] = []
    const call = this.#client.makeServerStreamRequest(path, toBytes, toBytes, Buffer.from(request))
    for await (const reply of call) replies.push(reply as Buffer)
    return replies
  }
}

function toBytes(bytes: Buffer): Buffer {
  return bytes
}
