import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { onTestFinished } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { type Datastore, type DatastoreSettings, startDatastore } from '../../../src/datastore/datastore.ts'
import { MessageWriter } from '../../../src/datastore/grpc/protobuf/message-writer.ts'

export const workerUrl = new URL('../../../src/datastore/worker.ts', import.meta.url)

/** An empty directory that goes with the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-datastore-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A datastore that ends with the test. */
export async function runDatastore(
  settings: Partial<DatastoreSettings> & { path: string },
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

/** A message of the fields that are given: strings and bytes length-delimited, numbers as varints. */
export function message(fields: Record<number, string | Uint8Array | number | bigint>): Buffer {
  const writer = new MessageWriter()
  for (const [field, value] of Object.entries(fields)) {
    const number = Number(field)
    if (typeof value === 'number') writer.bigint(number * 8, BigInt(value))
    else if (typeof value === 'bigint') writer.bigint(number * 8, value)
    else writer.presentBytes(number * 8 + 2, Buffer.from(value as Uint8Array))
  }
  return Buffer.from(writer.bytesWritten())
}

export type Fields = Map<number, (bigint | Buffer)[]>

/** The fields of a message by their numbers: varints as numbers, all else as bytes. */
export function fieldsOf(bytes: Buffer): Fields {
  const fields: Fields = new Map()
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = varint(bytes, at)
    const [value, afterValue] = varint(bytes, afterTag)
    at = afterValue
    const field = Number(tag >> 3n)
    const list = fields.get(field) ?? []
    fields.set(field, list)
    if ((tag & 7n) === 0n) {
      list.push(value)
      continue
    }
    at += Number(value)
    list.push(bytes.subarray(afterValue, at))
  }
  return fields
}

function varint(bytes: Buffer, start: number): [value: bigint, end: number] {
  let value = 0n
  for (let at = start, shift = 0n; ; at++, shift += 7n) {
    const byte = bytes[at]
    if (byte === undefined) throw new Error('truncated varint')
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return [value, at + 1]
  }
}
