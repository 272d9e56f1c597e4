import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { compactDatastore } from '../datastore/compact.ts'
import type { EtcdServer } from '../datastore/datastore.ts'
import { disarmDatastore } from '../datastore/disarm.ts'
import { Member, type MemberStatus } from '../datastore/member.ts'

/*
 * What a member's database needs:
 *
 *    much of it is free      it is given back to the disk (defragmented), as etcd never does by itself; at most once an hour
 *    its quota is reached    history is removed, since kube-apiserver cannot compact any more, what is free is given back, and
 *                            where there is room then the alarm is lowered: writes go on
 */

const answerLimitMs = 10_000
/** Until then the member answers nobody: a second for each 100 MB or so. */
const defragmentLimitMs = 600_000
/** Free space that is worth the pause: a part of the file, of files that are not small anyway. */
const freeShare = 0.5
const smallestBytes = 64 * 1024 * 1024
const intervalMs = 3_600_000
/** Near the quota less is enough, and whatever is free counts when it is reached. */
const nearQuotaShare = 0.8
const nearQuotaFreeShare = 0.2
/** Below this part of the quota there is room again. */
const roomShare = 0.9

export interface MemberCareOptions {
  /** This server's own member; its files are read for every look. */
  readonly server: () => EtcdServer
  /** Where the other members have to reach it. */
  readonly peerUrl: () => string
  readonly log: Logger
}

/** Keeps a member's database within its bounds, and its address as it is. */
export class MemberCare {
  readonly #options: MemberCareOptions
  #defragmentedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: MemberCareOptions) {
    this.#options = options
  }

  /** Rejects with ETCD_NO_SPACE when the quota is reached and there is nothing left to give back. */
  async look(signal: AbortSignal): Promise<void> {
    const server = this.#options.server()
    using member = new Member(server)
    const limited = () => AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)])
    const status = await member.status(limited())
    if (isOutOfSpace(status)) await this.#makeRoom(server, { status, signal })
    else if (wantsDefragmentation(status) && performance.now() - this.#defragmentedAtMs > intervalMs)
      await this.#defragment(server, { status, signal })
    await this.#followAddress(member, status.id, limited())
  }

  async #makeRoom(
    server: EtcdServer,
    { status, signal }: { status: MemberStatus; signal: AbortSignal },
  ): Promise<void> {
    let now = status
    if (!hasRoom(now)) {
      await compactDatastore({ server, revision: undefined, defragment: false })
      now = await this.#defragment(server, { status, signal })
    }
    const { bytes, quotaBytes } = now
    if (!hasRoom(now)) {
      const [used, quota] = [bytes, quotaBytes].map((count) => `${Math.ceil(count / 2 ** 20)} MiB`)
      throw new AppError(
        `cannot take writes: etcd has reached its quota, and ${used} of ${quota} are in use`,
        {
          code: 'ETCD_NO_SPACE',
          remedy: 'delete what is not needed, or start with a larger --quota-backend-bytes',
        },
      )
    }
    if (await disarmDatastore(server, now.id))
      this.#options.log.info({ bytes, quotaBytes }, 'etcd has room again, and takes writes')
  }

  async #defragment(
    server: EtcdServer,
    { status, signal }: { status: MemberStatus; signal: AbortSignal },
  ): Promise<MemberStatus> {
    using member = new Member(server)
    const begunMs = performance.now()
    await member.defragment(AbortSignal.any([signal, AbortSignal.timeout(defragmentLimitMs)]))
    this.#defragmentedAtMs = performance.now()
    const now = await member.status(AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)]))
    const tookMs = Math.round(performance.now() - begunMs)
    this.#options.log.info({ from: status.bytes, bytes: now.bytes, tookMs }, 'etcd was defragmented')
    return now
  }

  /** The machine has another address than when it became a member. */
  async #followAddress(member: Member, id: bigint, signal: AbortSignal): Promise<void> {
    const peerUrl = this.#options.peerUrl()
    const own = (await member.members(signal)).find((listed) => listed.id === id)
    if (own === undefined || own.peerUrls.join() === peerUrl) return
    await member.updateMember(id, [peerUrl], signal)
    this.#options.log.info({ from: own.peerUrls.join(), to: peerUrl }, 'other members find this one there')
  }
}

/** Its own alarm: the others care for theirs. */
function isOutOfSpace({ errors, id }: MemberStatus): boolean {
  return errors.some((error) => error.includes('NOSPACE') && error.includes(`memberID:${id}`))
}

function hasRoom({ bytes, quotaBytes }: MemberStatus): boolean {
  return quotaBytes === 0 || bytes < quotaBytes * roomShare
}

function wantsDefragmentation({ bytes, bytesInUse, quotaBytes }: MemberStatus): boolean {
  const share = (bytes - bytesInUse) / bytes
  if (quotaBytes > 0 && bytes > quotaBytes * nearQuotaShare && share > nearQuotaFreeShare) return true
  return bytes >= smallestBytes && share > freeShare
}
