import { createHash } from 'node:crypto'
import { describeError } from '../base/errors.ts'
import { request } from '../base/http.ts'
import type { PolicyFacts } from '../network/policy/facts.ts'
import type { NodeTaskContext } from './tasks/task.ts'

/** Of events that are told in one pass, and of those that are remembered as told. */
const passLimit = 20
const toldLimit = 10_000
const nameLimit = 200

type EventContext = Pick<NodeTaskContext, 'access' | 'config' | 'log'>

/** Tells of policies that cannot be enforced as they stand, by Events on them: once, whichever node is the first. */
export class PolicyEvents {
  readonly #context: EventContext
  readonly #told = new Set<string>()

  constructor(context: EventContext) {
    this.#context = context
  }

  async tell(
    problems: Iterable<readonly [key: string, reason: string]>,
    policies: ReadonlyMap<string, PolicyFacts>,
    signal: AbortSignal,
  ): Promise<void> {
    let left = passLimit
    for (const [key, reason] of problems) {
      const policy = policies.get(key)
      if (policy === undefined) continue
      const id = createHash('sha256').update(`${policy.uid} ${reason}`).digest('hex').slice(0, 16)
      if (this.#told.has(id)) continue
      if (left-- === 0) return
      if (this.#told.size >= toldLimit) this.#told.clear()
      this.#told.add(id)
      const { log } = this.#context
      log.warn({ policy: key, reason }, 'a network policy is not enforced as it stands')
      // Not again: whoever made the policy may have named it so that there can be none.
      await this.#post(policy, { id, reason }, signal).catch((error: unknown) => {
        signal.throwIfAborted()
        log.debug({ policy: key, reason: describeError(error) }, 'cannot write an Event')
      })
    }
  }

  async #post(
    policy: PolicyFacts,
    { id, reason }: { id: string; reason: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { access, config } = this.#context
    const { namespace, name, uid } = policy
    const now = new Date().toISOString().replace(/\.\d+/, '')
    const { status } = await request({
      ...{
        method: 'POST',
        url: `${access.server}/api/v1/namespaces/${encodeURIComponent(namespace)}/events`,
      },
      ...{ tls: await access.policyIdentity(), signal, headers: { 'content-type': 'application/json' } },
      body: JSON.stringify({
        ...{
          apiVersion: 'v1',
          kind: 'Event',
          metadata: { namespace, name: `${name.slice(0, nameLimit).replace(/[^a-z0-9]+$/, '')}.${id}` },
        },
        involvedObject: { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', namespace, name, uid },
        ...{ type: 'Warning', reason: 'NotEnforced', message: reason, count: 1 },
        ...{ firstTimestamp: now, lastTimestamp: now, source: { component: 'k8s', host: config.nodeName } },
      }),
    })
    // 409: another node has told it.
    if (status >= 300 && status !== 409) throw new Error(`the API server answers ${status}`)
  }
}
