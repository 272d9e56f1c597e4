import { AppError } from '../../base/errors.ts'
import { Connections, type HttpRequest, request, requestStream, type TlsIdentity } from '../../base/http.ts'

/** An object has 1.5 MiB at most, in an escaped form more. */
const maxBytes = 8 << 20
/** Of those that are read in full. */
const pageItems = 25
const pageMaxBytes = 64 << 20
const pageRows = 500

/** `includeObject=None`: rows have the few cells that kubectl prints, however large somebody has made an object. */
const tableType = 'application/json;as=Table;v=v1;g=meta.k8s.io'
const jsonType = 'application/json'
const mergeType = 'application/merge-patch+json'

interface Listing<Item> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
  readonly items?: readonly Item[]
}

interface Table {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
  readonly columnDefinitions?: readonly { readonly name: string }[]
  readonly rows?: readonly { readonly cells: readonly unknown[] }[]
}

/** Cells by the names of their columns. */
export type Row = Readonly<Record<string, string>>

interface ClusterApiOptions {
  /** https://127.0.0.1:6443 */
  readonly server: string
  readonly tls: TlsIdentity
  readonly signal: AbortSignal
}

/** Plain requests to the API server, over connections of its own until it is disposed of. */
export class ClusterApi implements Disposable {
  readonly #options: ClusterApiOptions
  readonly #connections: Connections

  constructor(options: ClusterApiOptions) {
    this.#options = options
    this.#connections = new Connections(options.server, options.tls)
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]()
  }

  /** undefined: there is none. */
  async get<Type>(path: string): Promise<Type | undefined> {
    const { status, body } = await this.#send({ url: path })
    return status === 404 ? undefined : parse<Type>(`read ${path}`, { status, body })
  }

  /** A PATCH says what differs. Whether it was taken; false: the object has changed, is gone, or is there already. */
  async write(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, object: object): Promise<boolean> {
    const answer = await this.#send({
      ...{ method, url: path, body: JSON.stringify(object) },
      headers: { accept: jsonType, 'content-type': method === 'PATCH' ? mergeType : jsonType },
    })
    if ([404, 409].includes(answer.status)) return false
    parse(`write ${path}`, answer)
    return true
  }

  /** All of a kind, page by page. */
  async list<Item>(path: string): Promise<{ items: Item[]; resourceVersion: string }> {
    const items: Item[] = []
    const resourceVersion = await this.#pages<Listing<Item>>({
      ...{ path, type: jsonType, limit: pageItems, bytes: pageMaxBytes },
      take: (page) => items.push(...(page.items ?? [])),
    })
    return { items, resourceVersion }
  }

  async rows(path: string): Promise<{ rows: Row[]; resourceVersion: string }> {
    const rows: Row[] = []
    const resourceVersion = await this.#pages<Table>({
      ...{
        path: withParameters(path, { includeObject: 'None' }),
        type: tableType,
        limit: pageRows,
        bytes: maxBytes,
      },
      take: ({ columnDefinitions = [], rows: found = [] }) => {
        const names = columnDefinitions.map(({ name }) => name)
        rows.push(
          ...found.map(({ cells }) =>
            Object.fromEntries(names.map((name, index) => [name, String(cells[index] ?? '')])),
          ),
        )
      },
    })
    return { rows, resourceVersion }
  }

  async #pages<Page extends Listing<unknown> | Table>(given: {
    path: string
    type: string
    limit: number
    bytes: number
    take: (page: Page) => void
  }): Promise<string> {
    const { path, type, limit, bytes, take } = given
    for (let next = ''; ; ) {
      const page = next === '' ? {} : { continue: next }
      const url = withParameters(path, { limit: String(limit), ...page })
      const answer = await this.#send({ url, headers: { accept: type }, maxBytes: bytes })
      const parsed = parse<Page>(`list ${path}`, answer)
      take(parsed)
      next = parsed.metadata.continue ?? ''
      if (next === '') return parsed.metadata.resourceVersion
    }
  }

  #send(asked: HttpRequest): Promise<{ status: number; body: string }> {
    const { server, signal } = this.#options
    return request({ maxBytes, ...asked, url: server + asked.url, connections: this.#connections, signal })
  }
}

/**
 * Resolves when something of `path` has changed since `resourceVersion`, and after `limitMs` in any case. It costs an
 * idle cluster a connection.
 */
export async function changed(
  path: string,
  {
    server,
    tls,
    signal,
    resourceVersion,
    limitMs,
  }: ClusterApiOptions & { resourceVersion: string; limitMs: number },
): Promise<void> {
  const timeoutSeconds = String(Math.max(1, Math.ceil(limitMs / 1000)))
  const url = withParameters(path, { watch: '1', resourceVersion, timeoutSeconds, includeObject: 'None' })
  const { status, body } = await requestStream({
    ...{ url: server + url, tls, signal, timeoutMs: limitMs + 10_000 },
    headers: { accept: tableType },
  })
  if (status !== 200) throw new AppError(`cannot watch ${path}: HTTP ${status}`, { code: 'CLUSTER_API' })
  // What has changed is read anew.
  for await (const part of body) if (part.length > 0) return
}

function withParameters(path: string, parameters: Readonly<Record<string, string>>): string {
  return `${path}${path.includes('?') ? '&' : '?'}${new URLSearchParams(parameters).toString()}`
}

function parse<Type>(purpose: string, { status, body }: { status: number; body: string }): Type {
  if (status < 300) return JSON.parse(body) as Type
  throw new AppError(`cannot ${purpose}: HTTP ${status}: ${body.slice(0, 500)}`, { code: 'CLUSTER_API' })
}
