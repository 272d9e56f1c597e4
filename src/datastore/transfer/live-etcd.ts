import { once } from 'node:events'
import { createWriteStream, readFileSync } from 'node:fs'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { Agent, request as requestHttps } from 'node:https'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'

import { AppError } from '../../base/errors.ts'
import type { Dump, DumpedVersion } from '../log/dump.ts'

/** etcd's limits of a transaction (--max-txn-ops) and of a request (--max-request-bytes), with a margin. */
const operationsLimit = 128
const bytesLimit = 1024 * 1024
const privateMode = 0o600
const answerTimeoutMs = 60_000

export interface LiveEtcdOptions {
  /** http(s)://HOST:PORT */
  readonly endpoint: string
  readonly caFile?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
}

/**
 * An etcd that runs, by its JSON gateway, which every etcd has on its client port unless it is switched off
 * (--enable-grpc-gateway): https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/
 */
export class LiveEtcd implements Disposable {
  readonly #endpoint: string
  readonly #agent: Agent | undefined

  constructor({ endpoint, caFile, certFile, keyFile }: LiveEtcdOptions) {
    this.#endpoint = endpoint.replace(/\/$/, '')
    this.#agent = endpoint.startsWith('https:')
      ? new Agent({ keepAlive: true, ca: readTls(caFile), cert: readTls(certFile), key: readTls(keyFile) })
      : undefined
  }

  /** Saves a snapshot with its digest, as etcdctl does. */
  async saveSnapshot(path: string): Promise<void> {
    const answer = await this.#post('/v3/maintenance/snapshot', {})
    await pipeline(Readable.from(blobs(answer)), createWriteStream(path, { flags: 'wx', mode: privateMode }))
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
    this.#agent?.destroy()
  }

  async #put(versions: readonly DumpedVersion[]): Promise<void> {
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    await this.#ask('/v3/kv/txn', {
      success: versions.map(({ key, value, lease }) => ({
        request_put: { key: base64(key), value: base64(value), lease: String(lease) },
      })),
    })
  }

  async #ask(path: string, body: object): Promise<unknown> {
    return JSON.parse(await text(await this.#post(path, body)))
  }

  async #post(path: string, body: object): Promise<IncomingMessage> {
    const url = `${this.#endpoint}${path}`
    const options = {
      ...{ method: 'POST', timeout: answerTimeoutMs },
      headers: { 'content-type': 'application/json' },
      ...(this.#agent !== undefined && { agent: this.#agent }),
    }
    const request = url.startsWith('https:') ? requestHttps(url, options) : requestHttp(url, options)
    request.on('timeout', () => request.destroy(new Error(`no answer within ${answerTimeoutMs / 1000} s`)))
    request.end(JSON.stringify(body))
    let answer: IncomingMessage
    try {
      ;[answer] = (await once(request, 'response')) as [IncomingMessage]
    } catch (cause) {
      throw this.#failure(cause instanceof Error ? cause.message : String(cause))
    }
    if (answer.statusCode === 200) return answer
    throw this.#failure(reasonOf(answer, await text(answer)))
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

function readTls(path: string | undefined): Buffer | undefined {
  try {
    return path === undefined ? undefined : readFileSync(path)
  } catch (cause) {
    throw new AppError(`cannot read ${path}`, { code: 'LIVE_ETCD', path }, { cause })
  }
}

async function* blobs(answer: IncomingMessage): AsyncGenerator<Buffer> {
  for await (const line of createInterface({ input: answer })) {
    if (line === '') continue
    const { result, error } = JSON.parse(line) as {
      result?: { blob?: string }
      error?: { message?: string }
    }
    if (result === undefined) throw new Error(`the snapshot ended in an error: ${error?.message ?? line}`)
    yield Buffer.from(result.blob ?? '', 'base64')
  }
}

function reasonOf({ statusCode }: IncomingMessage, body: string): string {
  try {
    const { message } = JSON.parse(body) as { message?: string }
    if (message !== undefined) return message
  } catch {
    // Whatever answers there is no etcd.
  }
  return `it answers with status ${statusCode}`
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
