import { AppError } from '../base/errors.ts'
import { Connections, type HttpRequest, type HttpResponse, request, type TlsIdentity } from '../base/http.ts'
import { type Manifest, manifestPath, type ObjectName } from './manifest.ts'

/** Owner of the fields that the add-ons set, as `kubectl get --show-managed-fields` shows it. */
export const fieldManager = 'k8s'

const requestTimeoutMs = 10_000
/** Of an answer that is told. */
const answerLengthLimit = 500

export interface LiveObject {
  readonly metadata: {
    readonly uid: string
    readonly resourceVersion: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly managedFields?: readonly { readonly manager?: string; readonly operation?: string }[]
  }
  readonly [key: string]: unknown
}

/**
 * The few requests by which add-ons are kept, over connections of its own until it is disposed of. Each rejects with
 * ADDON_REQUEST, or the reason why there was no answer.
 */
export class ObjectClient implements Disposable {
  readonly #server: string
  readonly #signal: AbortSignal
  readonly #connections: Connections

  /** server: https://127.0.0.1:6443 */
  constructor({ server, tls, signal }: { server: string; tls: TlsIdentity; signal: AbortSignal }) {
    this.#server = server
    this.#signal = signal
    this.#connections = new Connections(server, tls)
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]()
  }

  /** undefined: there is none. */
  async get(name: ObjectName): Promise<LiveObject | undefined> {
    const { status, body } = await this.#send({ url: manifestPath(name) })
    if (status === 404) return undefined
    return this.#parse(name, 'read', { status, body })
  }

  /**
   * Server-side apply (KEP-555): fields that a user set and ours do not mention stay; those we own return to our
   * value. Repeatable.
   */
  async apply(manifest: Manifest): Promise<LiveObject> {
    const answer = await this.#send({
      method: 'PATCH',
      url: `${manifestPath(manifest)}?fieldManager=${fieldManager}&force=true`,
      // JSON is YAML; application/apply-patch+cbor aside this is the only media type of an apply.
      headers: { 'content-type': 'application/apply-patch+yaml', accept: 'application/json' },
      body: JSON.stringify(labelled(manifest)),
    })
    return this.#parse(manifest, 'apply', answer)
  }

  /** Exactly this one: one of the same name that came since is left alone. */
  async remove(name: ObjectName, uid: string): Promise<void> {
    const answer = await this.#send({
      method: 'DELETE',
      url: manifestPath(name),
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        propagationPolicy: 'Background',
        preconditions: { uid },
      }),
    })
    if (answer.status !== 404 && answer.status !== 409) this.#parse(name, 'remove', answer)
  }

  #send(asked: Pick<HttpRequest, 'url' | 'method' | 'headers' | 'body'>): Promise<HttpResponse> {
    return request({
      ...asked,
      url: `${this.#server}${asked.url}`,
      connections: this.#connections,
      signal: this.#signal,
      timeoutMs: requestTimeoutMs,
    })
  }

  #parse({ kind, metadata }: ObjectName, verb: string, { status, body }: HttpResponse): LiveObject {
    if (status < 300) return JSON.parse(body) as LiveObject
    throw new AppError(
      `cannot ${verb} ${kind} ${metadata.name}: HTTP ${status}: ${messageOf(body).slice(0, answerLengthLimit)}`,
      { code: 'ADDON_REQUEST' },
    )
  }
}

/** What a Status says, which the API server answers with when it refuses something. */
function messageOf(body: string): string {
  try {
    const { message } = JSON.parse(body) as { message?: unknown }
    return typeof message === 'string' ? message : body
  } catch {
    return body
  }
}

/** Who applies an object without any field of his own is not noted among its managers (a ServiceAccount's name is none). */
function labelled(manifest: Manifest): Manifest {
  const { labels, ...metadata } = manifest.metadata
  const own = { 'app.kubernetes.io/managed-by': fieldManager }
  return { ...manifest, metadata: { ...metadata, labels: { ...(labels as object | undefined), ...own } } }
}
