import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import { AppError, describeError } from '../../base/errors.ts'
import { privateMode } from '../../base/files.ts'
import { Connections, type HttpRequest, request, requestStream, type TlsIdentity } from '../../base/http.ts'
import { readTlsIdentity, type TlsClientFiles } from '../../base/tls-files.ts'
import type { Dump, DumpedVersion } from '../log/dump.ts'

/** etcd's limits of a transaction (--max-txn-ops) and of a request (--max-request-bytes), with a margin. */
const operationsLimit = 128
const bytesLimit = 1024 * 1024
const answerTimeoutMs = 60_000
/** etcd sends 32 KiB in each (maintenance.go, snapshotSendBufferSize). */
const lineLimit = 4 * 1024 * 1024
/** In Base64 a quota of 48 GiB; etcd's advice is 8 GiB. */
const snapshotLimitBytes = 64 * 1024 ** 3

export interface LiveEtcdOptions extends TlsClientFiles {
  /** http(s)://HOST:PORT */
  readonly endpoint: string
}

/**
 * An etcd that runs, by its JSON gateway, which every etcd has on its client port unless it is switched off
 * (--enable-grpc-gateway): https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/
 */
export class LiveEtcd implements Disposable {
  readonly #endpoint: string
  readonly #tls: TlsIdentity
  readonly #connections: Connections

  constructor({ endpoint, ...files }: LiveEtcdOptions) {
    this.#endpoint = endpoint.replace(/\/$/, '')
    this.#tls = readTlsIdentity(files)
    this.#connections = new Connections(this.#endpoint, this.#tls)
  }

  /** Saves a snapshot with its digest, as etcdctl does. */
  async saveSnapshot(path: string): Promise<void> {
    const asked = { ...this.#post('/v3/maintenance/snapshot', {}), maxBytes: snapshotLimitBytes }
    const { status, body } = await requestStream(asked).catch((cause: unknown) => {
      throw this.#failure(describeError(cause))
    })
    if (status !== 200) throw this.#failure(reasonOf(status, await firstPart(body)))
    await pipeline(Readable.from(blobs(body)), createWriteStream(path, { flags: 'wx', mode: privateMode }))
  }

  /** How many keys it has. */
  async count(): Promise<number> {
    const all = Buffer.of(0).toString('base64')
    const answer = await this.#ask('/v3/kv/range', { key: all, range_end: all, count_only: true })
    return Number((answer as { count?: string }).count ?? 0)
  }

  /** Puts the live keys of a dump with their leases; they get new revisions, in the order of the former ones. */
  async putAll(dump: Dump): Promise<{ keys: number; leases: number }> {
    const live = liveRevisions(dump)
    const leases = dump.leases()
    for (const { id, ttlSeconds } of leases) {
      await this.#ask('/v3/lease/grant', { ID: String(id), TTL: String(ttlSeconds) })
    }
    let batch: DumpedVersion[] = []
    let bytes = 0
    let keys = 0
    for (const version of dump.versions()) {
      if (live.get(nameOf(version)) !== placeOf(version)) continue
      const size = version.key.length + version.value.length
      if (batch.length === operationsLimit || (batch.length > 0 && bytes + size > bytesLimit)) {
        await this.#put(batch)
        batch = []
        bytes = 0
      }
      batch.push(version)
      bytes += size
      keys++
    }
    if (batch.length > 0) await this.#put(batch)
    return { keys, leases: leases.length }
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]()
  }

  async #put(versions: readonly DumpedVersion[]): Promise<void> {
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    await this.#ask('/v3/kv/txn', {
      success: versions.map(({ key, value, lease }) => ({
        request_put: { key: base64(key), value: base64(value), lease: String(lease) },
      })),
    })
  }

  async #ask(path: string, sent: object): Promise<unknown> {
    const { status, body } = await request(this.#post(path, sent)).catch((cause: unknown) => {
      throw this.#failure(describeError(cause))
    })
    if (status !== 200) throw this.#failure(reasonOf(status, body))
    return JSON.parse(body)
  }

  #post(path: string, body: object): HttpRequest {
    return {
      url: `${this.#endpoint}${path}`,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      tls: this.#tls,
      connections: this.#connections,
      timeoutMs: answerTimeoutMs,
    }
  }

  #failure(reason: string): AppError {
    return new AppError(`cannot speak with the etcd at ${this.#endpoint}: ${reason}`, {
      code: 'LIVE_ETCD',
      endpoint: this.#endpoint,
      remedy:
        'check its address, that it wants no other certificates, and that its JSON gateway is not switched off',
    })
  }
}

async function firstPart(body: AsyncIterable<Buffer>): Promise<string> {
  for await (const part of body) return part.toString()
  return ''
}

async function* blobs(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const line of linesOf(body)) {
    if (line === '') continue
    const { result, error } = JSON.parse(line) as {
      result?: { blob?: string }
      error?: { message?: string }
    }
    if (result === undefined) throw new Error(`the snapshot ended in an error: ${error?.message ?? line}`)
    yield Buffer.from(result.blob ?? '', 'base64')
  }
}

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = ''
  for await (const part of body) {
    const [head = '', ...lines] = part.toString('latin1').split('\n')
    rest += head
    for (const line of lines) {
      yield rest
      rest = line
    }
    if (rest.length > lineLimit)
      throw new Error(`a message of its snapshot is longer than ${lineLimit} bytes`)
  }
  yield rest
}

function reasonOf(status: number, body: string): string {
  try {
    const { message } = JSON.parse(body) as { message?: string }
    if (message !== undefined) return message
  } catch {
    // Whatever answers there is no etcd.
  }
  return `it answers with status ${status}`
}

/** Where the newest version of each key that exists is. */
function liveRevisions(dump: Dump): Map<string, string> {
  const live = new Map<string, string>()
  for (const version of dump.versions()) {
    if (version.version === 0) live.delete(nameOf(version))
    else live.set(nameOf(version), placeOf(version))
  }
  return live
}

function nameOf({ key }: DumpedVersion): string {
  return Buffer.from(key).toString('latin1')
}

function placeOf({ revision, sub }: DumpedVersion): string {
  return `${revision}.${sub}`
}
