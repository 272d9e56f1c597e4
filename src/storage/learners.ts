import { describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { type ListedMember, Member } from '../datastore/member.ts'
import type { Membership } from './membership.ts'

/** One that gets no further for so long is dropped, or nobody else could join. */
const defaultStuckLimitMs = 300_000
const answerLimitMs = 3_000

export interface LearnersOptions {
  readonly membership: Membership
  readonly tls: () => TlsIdentity
  readonly log: Logger
  readonly stuckLimitMs?: number
}

/**
 * What a server that is in does for one that joins: has its member vote as soon as that has caught up, and drops one that does not.
 * Only one that answers is promoted: a vote of the dead would be missing.
 */
export class Learners {
  readonly #options: LearnersOptions
  #seen: { readonly id: bigint; applied: bigint; sinceMs: number } | undefined

  constructor(options: LearnersOptions) {
    this.#options = options
  }

  /** Whether there is one. Repeatable; etcd has one at a time. */
  async look(signal: AbortSignal): Promise<boolean> {
    const { membership } = this.#options
    const learner = membership.listed.find(({ isLearner }) => isLearner)
    if (learner === undefined) {
      this.#seen = undefined
      return false
    }
    const applied = await this.#progressOf(learner, signal)
    const nowMs = performance.now()
    if (this.#seen?.id !== learner.id) this.#seen = { id: learner.id, applied: 0n, sinceMs: nowMs }
    if (applied !== undefined && applied !== this.#seen.applied)
      Object.assign(this.#seen, { applied, sinceMs: nowMs })
    if (applied !== undefined && (await this.#promote(learner, signal))) return true
    const { stuckLimitMs = defaultStuckLimitMs } = this.#options
    if (nowMs - this.#seen.sinceMs > stuckLimitMs) await this.#drop(learner, signal)
    return true
  }

  /** undefined: it does not answer. */
  async #progressOf(learner: ListedMember, signal: AbortSignal): Promise<bigint | undefined> {
    const { membership, tls } = this.#options
    const address = membership.endpointOf(learner)
    if (address === undefined) return undefined
    try {
      using member = new Member({ address, tls: tls() })
      return (await member.status(AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)]))).applied
    } catch {
      return undefined
    }
  }

  async #promote({ id, name }: ListedMember, signal: AbortSignal): Promise<boolean> {
    const { membership, log } = this.#options
    try {
      await membership.ask((member, limited) => member.promote(id, limited), signal)
    } catch (error) {
      signal.throwIfAborted()
      log.debug({ member: name, reason: describeError(error) }, 'it cannot vote yet')
      return false
    }
    log.info({ member: name }, 'the member of another server has caught up, and votes from now on')
    return true
  }

  async #drop({ id, name, peerUrls }: ListedMember, signal: AbortSignal): Promise<void> {
    const { membership, log } = this.#options
    await membership.ask((member, limited) => member.remove(id, limited), signal)
    log.warn(
      { member: name || peerUrls.join() },
      'dropped the member of a server that joins, as it got no further; that server may try again',
    )
  }
}
