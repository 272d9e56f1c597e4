import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { type ListedMember, Member } from '../datastore/member.ts'
import type { Members } from './members.ts'

/** Between two looks at who is a member; shorter while somebody joins. */
const intervalMs = 2_000
const joiningIntervalMs = 500
const answerLimitMs = 5_000

export interface MembershipOptions {
  /** Of this server's member. */
  readonly nodeName: string
  readonly peerUrl: () => string
  /** At which this server speaks with its own. */
  readonly ownEndpoint: string
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  /** Where the others were the last time. */
  readonly others: readonly string[]
  /** Keeps them for the next start. */
  readonly remember: (others: readonly string[]) => void
  readonly log: Logger
  /** Called after each look. */
  readonly onLook?: (membership: Membership) => void
}

/** Whether it is the member of that server: one that has never started has no name. */
export function isMemberOf(
  { nodeName, peerUrl }: Pick<MembershipOptions, 'nodeName' | 'peerUrl'>,
  { name, peerUrls }: ListedMember,
): boolean {
  return name === '' ? peerUrls.includes(peerUrl()) : name === nodeName
}

/** Who is a member of the servers' etcd: follows what changes while it runs, and is what is remembered before it does. */
export class Membership {
  readonly #options: MembershipOptions
  #others: readonly string[]
  #listed: readonly ListedMember[] = []
  #members: Members | undefined
  #connection: { readonly endpoint: string; readonly member: Member } | undefined

  constructor(options: MembershipOptions) {
    this.#options = options
    this.#others = options.others
  }

  /** At which members serve, as far as is known: this server's own comes first. */
  get endpoints(): string[] {
    return [this.#options.ownEndpoint, ...this.#others]
  }

  /** Where the members of the other servers serve. */
  get others(): readonly string[] {
    return this.#others
  }

  /** As they were seen last; empty: they were not yet. */
  get listed(): readonly ListedMember[] {
    return this.#listed
  }

  /** This server's; undefined: it is none, or nothing is known yet. */
  get own(): ListedMember | undefined {
    return this.#listed.find((member) => this.isOwn(member))
  }

  isOwn(member: ListedMember): boolean {
    return isMemberOf(this.#options, member)
  }

  /** Since when a member has not answered, performance.now; undefined: it has, or nobody asks it. */
  awaySince(member: ListedMember): number | undefined {
    const endpoint = this.endpointOf(member)
    return endpoint === undefined ? undefined : this.#members?.awaySince(endpoint)
  }

  /** Where it is spoken to from here. */
  endpointOf(member: ListedMember): string | undefined {
    const { ownEndpoint } = this.#options
    if (this.isOwn(member)) return ownEndpoint
    // That of a cluster of one server was on loopback once.
    return member.clientUrls.find((url) => url !== ownEndpoint)
  }

  /** Asks one that serves. Rejects when there is none, or with what it says. */
  async ask<Answer>(
    question: (member: Member, signal: AbortSignal) => Promise<Answer>,
    signal: AbortSignal,
  ): Promise<Answer> {
    const endpoint = this.#members?.best
    if (endpoint === undefined) throw new Error('no member of etcd serves')
    if (this.#connection?.endpoint !== endpoint) {
      this.#connection?.member[Symbol.dispose]()
      this.#connection = { endpoint, member: new Member({ address: endpoint, tls: this.#options.tls() }) }
    }
    const limited = AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)])
    try {
      return await question(this.#connection.member, limited)
    } catch (error) {
      this.#hangUp()
      throw error
    }
  }

  /** Looks who is a member until the signal fires, and has `members` be those. */
  async follow(members: Members, signal: AbortSignal): Promise<void> {
    this.#members = members
    const { log, onLook } = this.#options
    while (!signal.aborted) {
      if (members.best !== undefined) {
        try {
          this.#take(await this.ask((member, limited) => member.members(limited), signal))
          onLook?.(this)
        } catch (error) {
          if (!signal.aborted)
            log.debug({ reason: describeError(error) }, 'cannot ask who is a member of etcd')
        }
      }
      const isChanging = this.#listed.some(({ isLearner }) => isLearner) || this.own === undefined
      await sleep(isChanging ? joiningIntervalMs : intervalMs, undefined, { signal, ref: false }).catch(
        () => {},
      )
    }
    this.#hangUp()
  }

  #take(listed: readonly ListedMember[]): void {
    const { ownEndpoint, remember, log } = this.#options
    this.#listed = listed
    const voters = listed.filter(({ isLearner }) => !isLearner)
    const others = voters
      .filter((member) => !this.isOwn(member))
      .flatMap((member) => this.endpointOf(member) ?? [])
      .sort()
    const isVoter = voters.some((member) => this.isOwn(member))
    const endpoints = [...(isVoter ? [ownEndpoint] : []), ...others]
    if (endpoints.length > 0) this.#members?.setEndpoints(endpoints)
    if (others.join() === this.#others.join()) return
    log.info({ others }, 'the members of etcd on other servers')
    this.#others = others
    remember(others)
  }

  #hangUp(): void {
    this.#connection?.member[Symbol.dispose]()
    this.#connection = undefined
  }
}
