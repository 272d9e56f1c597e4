import type { Logger } from '../base/logger.ts'
import type { Membership } from '../storage/membership.ts'
import type { ListedMember } from '../storage/storage.ts'

/** How long a member has to be silent, and without a Node, until its server is taken to be gone. */
const defaultLimitMs = 60_000

export interface GoneMembersOptions {
  readonly membership: Membership
  /** Rejects when it cannot be found out, as does the one below. */
  readonly hasNode: (name: string) => Promise<boolean>
  /** The names of Nodes that somebody has removed for good (k8s node remove). */
  readonly removedNodes: () => Promise<ReadonlySet<string>>
  readonly log: Logger
  readonly limitMs?: number
}

/**
 * Takes out the member of a server that is gone for good: its Node was removed by the command for that, or for a while it has not
 * answered, and has had no Node. One that is merely down has its Node, and one that joins answers. etcd refuses what would cost the
 * others their majority.
 */
export class GoneMembers {
  readonly #options: GoneMembersOptions
  readonly #limitMs: number
  /** Since when a member has had no Node, by its id, performance.now. */
  readonly #missing = new Map<bigint, number>()

  constructor(options: GoneMembersOptions) {
    this.#options = options
    this.#limitMs = options.limitMs ?? defaultLimitMs
  }

  /** A member alone asks nobody, and for Nodes none asks while all members answer. */
  async look(signal: AbortSignal): Promise<void> {
    const others = this.#options.membership.listed.filter((member) => this.#isOther(member))
    if (others.length === 0) return
    const removed = await this.#options.removedNodes()
    const silent: ListedMember[] = []
    for (const member of others) {
      if (removed.has(member.name)) await this.#remove(member, signal)
      else if (this.#isSilent(member)) silent.push(member)
    }
    for (const id of this.#missing.keys())
      if (!silent.some((member) => member.id === id)) this.#missing.delete(id)
    for (const member of silent) if (await this.#isGone(member)) await this.#remove(member, signal)
  }

  #isOther(member: ListedMember): boolean {
    return !member.isLearner && member.name !== '' && !this.#options.membership.isOwn(member)
  }

  #isSilent(member: ListedMember): boolean {
    const sinceMs = this.#options.membership.awaySince(member)
    return sinceMs !== undefined && performance.now() - sinceMs > this.#limitMs
  }

  async #isGone({ id, name }: ListedMember): Promise<boolean> {
    if (await this.#options.hasNode(name)) {
      this.#missing.delete(id)
      return false
    }
    const sinceMs = this.#missing.get(id) ?? performance.now()
    this.#missing.set(id, sinceMs)
    return performance.now() - sinceMs > this.#limitMs
  }

  async #remove({ id, name }: ListedMember, signal: AbortSignal): Promise<void> {
    const { membership, log } = this.#options
    await membership.ask((member, limited) => member.remove(id, limited), signal)
    this.#missing.delete(id)
    log.warn({ member: name }, 'removed the member of a server that is gone for good')
  }
}
