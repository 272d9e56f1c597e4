/*
 * How the member of a server that joins gets into the etcd of the others; interrupted anywhere, it goes on from what it finds:
 *
 *    its turn       one server after the other, by a Lease
 *    not listed     data of an earlier try are of no use any more; it is added, as one that does not vote (a learner)
 *    listed         it was added before; it starts, and gets the data of the others
 *    without data   it had started, and what it had is lost: it is taken out, and added anew
 *    a voter        a server that is in has promoted it (learners.ts): it has joined
 */
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { firstAnswer } from '../base/first-answer.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { type ListedMember, Member } from '../datastore/member.ts'
import { isMemberOf } from './membership.ts'

/** Until it is told that another one joins; it goes on waiting. */
const turnLimitMs = 20_000
/** etcd refuses while another learner is there, and for five seconds after each change (HealthInterval). */
const addLimitMs = 30_000
const addRetryMs = 500
const answerLimitMs = 5_000

/** How servers that join come one after the other. */
export interface JoinQueue {
  /** Runs it when it is this server's turn; the signal of `run` fires when it is no more. */
  whileLeading(run: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void>
}

export interface EnrolmentOptions {
  readonly nodeName: string
  readonly peerUrl: () => string
  readonly memberDir: string
  readonly queue: JoinQueue
  /** Where the members of the others serve. */
  readonly others: () => readonly string[]
  readonly tls: () => TlsIdentity
  /** Called once, when it votes. */
  readonly onJoined: () => void
  readonly log: Logger
}

export class Enrolment {
  readonly #options: EnrolmentOptions
  readonly #over = new AbortController()
  #turn: Promise<void> | undefined
  #queued: Promise<void> | undefined
  #initialCluster: string | undefined

  constructor(options: EnrolmentOptions) {
    this.#options = options
  }

  /** Whether it has not joined yet. */
  get isUnderWay(): boolean {
    return !this.#over.signal.aborted
  }

  /** As --initial-cluster has it; undefined: it may not be started yet. */
  get initialCluster(): string | undefined {
    return this.#initialCluster
  }

  /** What it was let in with holds no more: it is for the next `begin`. */
  again(): void {
    this.#initialCluster = undefined
  }

  /** Resolves when the member can be started. Rejects with the reason why not yet; the next call goes on. */
  async begin(): Promise<void> {
    if (!this.isUnderWay) return
    let listed = await this.#members()
    this.#refuseForeign(listed)
    const former = listed.find((member) => this.#isOwn(member))
    const isLost = former !== undefined && former.name !== '' && !this.#hasData()
    if (former === undefined || isLost) {
      await this.#whenItsTurn()
      if (isLost) await this.#ask((member, signal) => member.remove(former.id, signal))
      await this.#forgetData()
      await this.#add()
      listed = await this.#members()
    }
    const { nodeName } = this.#options
    this.#initialCluster = listed
      .flatMap((member) => {
        const name = this.#isOwn(member) ? nodeName : member.name || member.id.toString(16)
        return member.peerUrls.map((url) => `${name}=${url}`)
      })
      .join()
  }

  /** Its member votes: the next one may join. Repeatable. */
  finish(): void {
    if (!this.isUnderWay) return
    this.#over.abort()
    this.#options.log.info('this server has joined the etcd of the others')
    this.#options.onJoined()
  }

  /** Gives its turn back, if it has it; for the stop. */
  async leaveQueue(): Promise<void> {
    this.#over.abort()
    await this.#queued
  }

  /** The Lease is kept until it has joined. */
  async #whenItsTurn(): Promise<void> {
    if (this.#turn === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const { signal } = this.#over
      this.#turn = promise
      this.#queued = this.#options.queue
        .whileLeading(async (term) => {
          resolve()
          await untilAborted(AbortSignal.any([term, signal]))
        }, signal)
        .catch((error: unknown) => {
          this.#options.log.warn({ reason: describeError(error) }, 'cannot wait for its turn to join')
          this.#turn = undefined
        })
    }
    const limit = sleep(turnLimitMs, 'late', { ref: false })
    if ((await Promise.race([this.#turn, limit])) === 'late')
      throw waiting('another server joins just now, or none of them answers')
  }

  #isOwn(member: ListedMember): boolean {
    return isMemberOf(this.#options, member)
  }

  /** Two machines with one address would take each other's place. */
  #refuseForeign(listed: readonly ListedMember[]): void {
    const peerUrl = this.#options.peerUrl()
    const foreign = listed.find((member) => member.peerUrls.includes(peerUrl) && !this.#isOwn(member))
    if (foreign === undefined) return
    throw new AppError(
      `cannot join the etcd of the other servers: ${foreign.name} is at ${peerUrl} already`,
      {
        code: 'ETCD_JOIN_ADDRESS',
        remedy:
          'give this machine an address of its own (--node-ip); where that server is gone, remove its Node',
      },
    )
  }

  #hasData(): boolean {
    return existsSync(join(this.#options.memberDir, 'member', 'wal'))
  }

  #members(): Promise<ListedMember[]> {
    return this.#ask((member, signal) => member.members(signal))
  }

  async #add(): Promise<void> {
    const endMs = performance.now() + addLimitMs
    for (;;) {
      try {
        await this.#ask((member, signal) => member.addLearner(this.#options.peerUrl(), signal))
        return
      } catch (error) {
        // What has not been answered may have been done.
        const listed = await this.#members().catch(() => [])
        if (listed.some((member) => this.#isOwn(member))) return
        if (performance.now() > endMs) throw waiting(describeError(error))
        this.#options.log.debug({ reason: describeError(error) }, 'etcd does not take another member yet')
      }
      await sleep(addRetryMs, undefined, { ref: false })
    }
  }

  /** Of the first that answers. */
  #ask<Answer>(question: (member: Member, signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
    const { others, tls } = this.#options
    const ask = async (address: string) => {
      using member = new Member({ address, tls: tls() })
      return await question(member, AbortSignal.timeout(answerLimitMs))
    }
    return firstAnswer(others(), ask, 'it is not known where the members of the others are')
  }

  /** A member that is not listed any more would never be let in with its data; they are a copy of what the others have. */
  async #forgetData(): Promise<void> {
    const { memberDir, log } = this.#options
    if (!existsSync(join(memberDir, 'member'))) return
    log.warn({ path: memberDir }, 'removing what an earlier try to join has left')
    await rm(join(memberDir, 'member'), { recursive: true, force: true })
  }
}

function waiting(reason: string): AppError {
  return new AppError(`waiting to be let into the etcd of the other servers: ${reason}`, {
    code: 'ETCD_JOIN_WAITS',
  })
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
