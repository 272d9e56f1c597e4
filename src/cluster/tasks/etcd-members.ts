import { setTimeout as sleep } from 'node:timers/promises'
import { ObjectClient } from '../../addons/objects.ts'
import { apiserverUrl } from '../../components/probe.ts'
import { readIdentity } from '../../pki/pki.ts'
import type { ListedMember } from '../../storage/storage.ts'
import type { Membership } from '../../storage/membership.ts'
import { ClusterApi } from '../join/cluster-api.ts'
import { memberAddressesManifest } from '../member-addresses.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** Who is a member is looked at all the while by storage/membership.ts: here it costs nothing. */
const intervalMs = 500
/** Somebody may have removed what servers that join are told. */
const tellIntervalMs = 60_000
/** Between two looks for members whose Node is gone, and how long that and their silence have to last. */
const goneIntervalMs = 10_000
const goneLimitMs = 60_000

/**
 * What a server that is in does for the etcd of all: tells servers that join where its members are, has those vote that have caught up,
 * and takes out what servers that are gone for good have left.
 */
export const etcdMembers: Task<TaskContext> = {
  name: 'etcd-members',
  purpose: 'look after the members of etcd',
  leaderOnly: true,
  async run(context, signal) {
    const { storage, whenReady, board, log } = context
    const { membership, learners } = storage
    if (membership === undefined || learners === undefined) return
    await whenReady('api')
    const trouble = new Trouble({ ...etcdMembers, board, log })
    const gone = new GoneNodes(context, membership)
    let told = { text: '', atMs: 0 }
    let lookedAtMs = 0
    for (;;) {
      await sleep(intervalMs, undefined, { signal, ref: false })
      await trouble.attempt(async () => {
        await learners.look(signal)
        const addresses = voterAddresses(membership)
        const nowMs = performance.now()
        if (addresses.length > 0 && (addresses.join() !== told.text || nowMs - told.atMs > tellIntervalMs)) {
          using client = new ObjectClient({ ...(await accessOf(context)), signal })
          await client.apply(memberAddressesManifest(addresses))
          told = { text: addresses.join(), atMs: nowMs }
        }
        if (nowMs - lookedAtMs < goneIntervalMs) return
        lookedAtMs = nowMs
        await gone.look(signal)
      }, signal)
    }
  },
}

/** As the other servers reach them. */
function voterAddresses({ listed }: Membership): string[] {
  return listed
    .filter(({ isLearner }) => !isLearner)
    .flatMap(({ clientUrls: [url] }) => url ?? [])
    .sort()
}

async function accessOf({ config, pki }: TaskContext) {
  return { server: apiserverUrl(config), tls: await readIdentity(pki, 'admin-client') }
}

/**
 * Takes out the member of a server that is gone for good: for a while it has not answered, and has had no Node. One that is merely down
 * has its Node, and one that joins answers. etcd refuses what would cost the others their majority.
 */
class GoneNodes {
  readonly #context: TaskContext
  readonly #membership: Membership
  /** Since when a member has had no Node, by its id, performance.now. */
  readonly #missing = new Map<bigint, number>()

  constructor(context: TaskContext, membership: Membership) {
    this.#context = context
    this.#membership = membership
  }

  async look(signal: AbortSignal): Promise<void> {
    const silent = this.#membership.listed.filter((member) => this.#isSilent(member))
    for (const id of this.#missing.keys())
      if (!silent.some((member) => member.id === id)) this.#missing.delete(id)
    for (const member of silent) if (await this.#isGone(member, signal)) await this.#remove(member, signal)
  }

  #isSilent(member: ListedMember): boolean {
    if (member.isLearner || member.name === '' || this.#membership.isOwn(member)) return false
    const sinceMs = this.#membership.awaySince(member)
    return sinceMs !== undefined && performance.now() - sinceMs > goneLimitMs
  }

  async #isGone({ id, name }: ListedMember, signal: AbortSignal): Promise<boolean> {
    using api = new ClusterApi({ ...(await accessOf(this.#context)), signal })
    const node = await api.get(`/api/v1/nodes/${encodeURIComponent(name)}`)
    if (node !== undefined) {
      this.#missing.delete(id)
      return false
    }
    const sinceMs = this.#missing.get(id) ?? performance.now()
    this.#missing.set(id, sinceMs)
    return performance.now() - sinceMs > goneLimitMs
  }

  async #remove({ id, name }: ListedMember, signal: AbortSignal): Promise<void> {
    await this.#membership.ask((member, limited) => member.remove(id, limited), signal)
    this.#missing.delete(id)
    this.#context.log.warn(
      { member: name },
      'removed the member of a server whose Node is gone, and which does not answer',
    )
  }
}
