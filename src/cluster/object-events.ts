import { createHash } from 'node:crypto'
import { type ApiAccess, openApi } from '../api/client.ts'
import { describeError } from '../base/errors.ts'
import type { NodeTaskContext } from './tasks/task.ts'

/** Of events that are told in one pass, and of those that are remembered as told. */
const passLimit = 20
const toldLimit = 10_000
const nameLimit = 200

type EventContext = Pick<NodeTaskContext, 'config' | 'log'>

interface EventObject {
  readonly namespace: string
  readonly name: string
  readonly uid: string
}

export interface Problem {
  /** Of the object among those that are known. */
  readonly key: string
  /** "NotEnforced", and in words. */
  readonly kind: string
  readonly reason: string
}

interface EventKind {
  readonly apiVersion: string
  readonly kind: string
  readonly access: ApiAccess
  /** What the log says of each. */
  readonly logged: string
}

/** Tells of objects that cannot be done as they stand, by Events on them: once, whichever node is the first. */
export class ObjectEvents {
  readonly #context: EventContext
  readonly #kind: EventKind
  readonly #told = new Set<string>()

  constructor(context: EventContext, kind: EventKind) {
    this.#context = context
    this.#kind = kind
  }

  /** False: there are more, for another time. */
  async tell(
    problems: Iterable<Problem>,
    objects: ReadonlyMap<string, EventObject>,
    signal: AbortSignal,
  ): Promise<boolean> {
    let left = passLimit
    for (const problem of problems) {
      const { key, reason } = problem
      const object = objects.get(key)
      if (object === undefined) continue
      const id = createHash('sha256').update(`${object.uid} ${reason}`).digest('hex').slice(0, 16)
      if (this.#told.has(id)) continue
      if (left-- === 0) return false
      if (this.#told.size >= toldLimit) this.#told.clear()
      this.#told.add(id)
      const { log } = this.#context
      log.warn({ object: key, reason }, this.#kind.logged)
      // Not again: whoever made the object may have named it so that there can be none.
      await this.#post(object, { ...problem, id }, signal).catch((error: unknown) => {
        signal.throwIfAborted()
        log.debug({ object: key, reason: describeError(error) }, 'cannot write an Event')
      })
    }
    return true
  }

  async #post(
    { namespace, name, uid }: EventObject,
    { id, kind: reason, reason: message }: Problem & { id: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { apiVersion, kind, access } = this.#kind
    const now = new Date().toISOString().replace(/\.\d+/, '')
    const host = this.#context.config.nodeName
    using api = await openApi(access, signal)
    // Where there is one already, another node has told it.
    await api.create(`/api/v1/namespaces/${encodeURIComponent(namespace)}/events`, {
      ...{ apiVersion: 'v1', kind: 'Event' },
      metadata: { namespace, name: `${name.slice(0, nameLimit).replace(/[^a-z0-9]+$/, '')}.${id}` },
      involvedObject: { apiVersion, kind, namespace, name, uid },
      ...{ type: 'Warning', reason, message, count: 1 },
      ...{ firstTimestamp: now, lastTimestamp: now, source: { component: 'k8s', host } },
    })
  }
}
