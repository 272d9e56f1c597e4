import { AppError, errorCode } from '../base/errors.ts'
import {
  Connections,
  type HttpRequest,
  type HttpResponse,
  request,
  requestStream,
  type TlsIdentity,
} from '../base/http.ts'
import { type LiveObject, type Manifest, type ObjectName, objectPath } from './objects.ts'

/** Owner of the fields that are applied, as `kubectl get --show-managed-fields` shows it. */
export const fieldManager = 'k8s'

/** An object has 1.5 MiB at most, in an escaped form six times as much. */
const answerLimitBytes = 16 << 20
const pageItems = 100
/** The API server says each minute how far it is (WatchBookmarks): a connection that is silent for longer is dead. */
const silenceLimitMs = 150_000
/** What is read of one watch before the next one goes on where it ended. */
const watchLimitBytes = 1 << 30
/** Of a refusal that is told, and of one that is read where much more might come. */
const toldLength = 500
const refusalLimit = 64 << 10

const json = 'application/json'
/** `includeObject=None`: rows have the few cells that kubectl prints, however large somebody has made an object. */
const table = 'application/json;as=Table;v=v1;g=meta.k8s.io'
const withoutObjects = { includeObject: 'None' }

/** How somebody reaches the API server, and what he shows there. */
export interface ApiAccess {
  /** https://127.0.0.1:6443 */
  readonly server: string
  /** From the files as they are now. Rejects while there are none. */
  readonly identity: () => Promise<TlsIdentity>
}

/** A path of an object or of many, with a query perhaps, or a name. */
type What = string | ObjectName

interface Page {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
}

interface Listing<Item> extends Page {
  readonly items?: readonly Item[] | null
}

interface Table extends Page {
  readonly columnDefinitions?: readonly { readonly name: string }[]
  readonly rows?: readonly { readonly cells: readonly unknown[] }[]
}

/** Cells by the names of their columns. */
export type Row = Readonly<Record<string, string>>

export interface WatchEvent<Item> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: Item
}

interface ApiOptions {
  readonly server: string
  readonly tls: TlsIdentity
  /** Ends all that is under way. */
  readonly signal: AbortSignal
  /** Of a request, where it is not that of base/http.ts. */
  readonly timeoutMs?: number | undefined
}

/** A client with the identity as it is now. */
export async function openApi(
  { server, identity }: ApiAccess,
  signal: AbortSignal,
  timeoutMs?: number,
): Promise<Api> {
  return new Api({ server, tls: await identity(), signal, timeoutMs })
}

/**
 * The requests of the daemon to an API server, over connections of its own until it is disposed of. Each rejects with API_REFUSED, which
 * has the status and Kubernetes' reason (`isStatus`), or as `request` where there was no answer.
 */
export class Api implements Disposable {
  readonly #options: ApiOptions
  readonly #connections: Connections

  constructor(options: ApiOptions) {
    this.#options = options
    this.#connections = new Connections(options.server, options.tls)
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]()
  }

  /** undefined: there is none. */
  async get<Type = LiveObject>(what: What): Promise<Type | undefined> {
    const answer = await this.#send(pathOf(what))
    return answer.status === 404 ? undefined : parsed<Type>('read', what, answer)
  }

  /** What is no JSON. */
  async text(path: string, maxBytes: number): Promise<string> {
    const answer = await this.#send(path, { maxBytes, headers: {} })
    return accepted('read', path, answer).body
  }

  /** All of a kind. */
  async list<Item>(path: string): Promise<{ items: Item[]; resourceVersion: string }> {
    const items: Item[] = []
    const resourceVersion = await this.eachPage<Item>(path, (page) => items.push(...page))
    return { items, resourceVersion }
  }

  /** The same page by page, for who keeps little of each; returns the version that they are of. */
  eachPage<Item>(path: string, take: (items: readonly Item[]) => void): Promise<string> {
    return this.#pages<Listing<Item>>(path, json, ({ items }) => take(items ?? []))
  }

  async rows(path: string): Promise<{ rows: Row[]; resourceVersion: string }> {
    const rows: Row[] = []
    const take = ({ columnDefinitions = [], rows: found = [] }: Table) => {
      const names = columnDefinitions.map(({ name }) => name)
      const cellsOf = (cells: readonly unknown[]) =>
        names.map((name, index) => [name, String(cells[index] ?? '')] as const)
      rows.push(...found.map(({ cells }) => Object.fromEntries(cellsOf(cells))))
    }
    const resourceVersion = await this.#pages<Table>(withQuery(path, withoutObjects), table, take)
    return { rows, resourceVersion }
  }

  /** As it was written; undefined: there is one already. */
  create<Type = LiveObject>(path: string, object: object): Promise<Type | undefined> {
    return this.#write<Type>('POST', path, { verb: 'create', object })
  }

  /** undefined: it has changed since the version in `object`, or is gone. */
  replace<Type = LiveObject>(path: string, object: object): Promise<Type | undefined> {
    return this.#write<Type>('PUT', path, { verb: 'write', object })
  }

  /** The same with what differs. */
  patch<Type = LiveObject>(path: string, object: object): Promise<Type | undefined> {
    const type = 'application/merge-patch+json'
    return this.#write<Type>('PATCH', path, { verb: 'write', object, type })
  }

  /**
   * Server-side apply (KEP-555): fields that a user set and ours do not mention stay; those we own return to our
   * value. Repeatable.
   */
  async apply(manifest: Manifest): Promise<LiveObject> {
    const path = withQuery(objectPath(manifest), { fieldManager, force: 'true' })
    // JSON is YAML; application/apply-patch+cbor aside this is the only media type of an apply.
    const answer = await this.#send(
      path,
      withBody('PATCH', labelled(manifest), 'application/apply-patch+yaml'),
    )
    return parsed<LiveObject>('apply', manifest, answer)
  }

  /** With a uid exactly this one: one of the same name that came since is left alone. Repeatable. */
  async remove(what: What, uid?: string): Promise<void> {
    const object = {
      ...{ apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Background' },
      ...(uid !== undefined && { preconditions: { uid } }),
    }
    await this.#write('DELETE', what, { verb: 'remove', object })
  }

  /** What happens to the objects of `path` from that version on, until the API server ends it, or says an ERROR: mostly 410, too much has happened since. */
  async *watch<Item>(path: string, resourceVersion: string): AsyncGenerator<WatchEvent<Item>> {
    const query = { watch: '1', allowWatchBookmarks: 'true', resourceVersion }
    const limits = { timeoutMs: silenceLimitMs, maxBytes: watchLimitBytes }
    const body = await this.#stream(withQuery(path, query), limits)
    for await (const line of linesOf(body)) yield JSON.parse(line) as WatchEvent<Item>
  }

  /** Resolves when something of `path` has changed since that version, and after `limitMs` in any case. It costs an idle cluster a connection. */
  async changed(path: string, resourceVersion: string, limitMs: number): Promise<void> {
    const timeoutSeconds = String(Math.max(1, Math.ceil(limitMs / 1000)))
    const query = { watch: '1', resourceVersion, timeoutSeconds, ...withoutObjects }
    const asked = { headers: { accept: table }, timeoutMs: limitMs + 10_000 }
    const body = await this.#stream(withQuery(path, query), asked)
    // What has changed is read anew.
    for await (const part of body) if (part.length > 0) return
  }

  async #write<Type>(
    method: 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    what: What,
    { verb, object, type = json }: { verb: string; object: object; type?: string },
  ): Promise<Type | undefined> {
    const answer = await this.#send(pathOf(what), withBody(method, object, type))
    return [404, 409].includes(answer.status) ? undefined : parsed<Type>(verb, what, answer)
  }

  async #pages<Given extends Page>(
    path: string,
    accept: string,
    take: (page: Given) => void,
  ): Promise<string> {
    for (let next = '', limit = pageItems; ; ) {
      const query = { limit: String(limit), ...(next !== '' && { continue: next }) }
      try {
        const answer = await this.#send(withQuery(path, query), { headers: { accept } })
        const page = parsed<Given>('list', path, answer)
        take(page)
        next = page.metadata?.continue ?? ''
        if (next === '') return page.metadata?.resourceVersion ?? '0'
      } catch (error) {
        // Somebody has made large ones, of which one goes into an answer.
        if (errorCode(error) !== 'HTTP_SIZE' || limit === 1) throw error
        limit = 1
      }
    }
  }

  async #stream(path: string, asked: Omit<HttpRequest, 'url'>): Promise<AsyncIterable<Buffer>> {
    const answer = await requestStream(this.#asked(path, asked))
    if (answer.status === 200) return answer.body
    let body = ''
    for await (const part of answer.body) if ((body += part.toString()).length > refusalLimit) break
    throw refusal('watch', path, { status: answer.status, body })
  }

  #send(path: string, asked: Omit<HttpRequest, 'url'> = {}): Promise<HttpResponse> {
    return request(this.#asked(path, asked))
  }

  #asked(path: string, asked: Omit<HttpRequest, 'url'>): HttpRequest {
    const { server, signal, timeoutMs } = this.#options
    return {
      ...{
        maxBytes: answerLimitBytes,
        headers: { accept: json },
        ...(timeoutMs !== undefined && { timeoutMs }),
      },
      ...{ ...asked, url: server + path, connections: this.#connections, signal },
    }
  }
}

function withBody(method: NonNullable<HttpRequest['method']>, object: object, type: string) {
  return { method, headers: { accept: json, 'content-type': type }, body: JSON.stringify(object) }
}

function pathOf(what: What): string {
  return typeof what === 'string' ? what : objectPath(what)
}

function withQuery(path: string, parameters: Readonly<Record<string, string>>): string {
  return `${path}${path.includes('?') ? '&' : '?'}${new URLSearchParams(parameters).toString()}`
}

function parsed<Type>(verb: string, what: What, answer: HttpResponse): Type {
  return JSON.parse(accepted(verb, what, answer).body) as Type
}

function accepted(verb: string, what: What, answer: HttpResponse): HttpResponse {
  if (answer.status < 300) return answer
  throw refusal(verb, what, answer)
}

/** With what a Status says, which the API server answers with when it refuses something. */
function refusal(verb: string, what: What, { status, body }: HttpResponse): AppError {
  const { reason = '', message = body } = statusIn(body)
  const named = typeof what === 'string' ? what.replace(/\?.*/, '') : `${what.kind} ${what.metadata.name}`
  const said = [`HTTP ${status}`, reason].filter(Boolean).join(' ')
  return new AppError(`cannot ${verb} ${named}: ${said}: ${message.slice(0, toldLength)}`, {
    ...{ code: 'API_REFUSED', status, reason },
  })
}

function statusIn(body: string): { reason?: string; message?: string } {
  try {
    const { reason, message } = JSON.parse(body) as { reason?: unknown; message?: unknown }
    return {
      ...(typeof reason === 'string' && { reason: reason.slice(0, toldLength) }),
      ...(typeof message === 'string' && { message }),
    }
  } catch {
    return {}
  }
}

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const part of body) {
    let from = 0
    for (let end = part.indexOf(10); end >= 0; end = part.indexOf(10, from)) {
      const line = Buffer.concat([...rest, part.subarray(from, end)]).toString()
      rest = []
      restBytes = 0
      from = end + 1
      if (line !== '') yield line
    }
    if (from === part.length) continue
    rest.push(part.subarray(from))
    restBytes += part.length - from
    if (restBytes > answerLimitBytes)
      throw new AppError(`cannot read an event of more than ${answerLimitBytes} bytes`, { code: 'API_EVENT' })
  }
}

/** Who applies an object without any field of his own is not noted among its managers (a ServiceAccount's name is none). */
function labelled(manifest: Manifest): Manifest {
  const { labels, ...metadata } = manifest.metadata
  const own = { 'app.kubernetes.io/managed-by': fieldManager }
  return { ...manifest, metadata: { ...metadata, labels: { ...(labels as object | undefined), ...own } } }
}
