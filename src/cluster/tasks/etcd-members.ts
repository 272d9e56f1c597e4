import { setTimeout as sleep } from 'node:timers/promises'
import { openApi } from '../../api/client.ts'
import type { Membership } from '../../storage/membership.ts'
import { GoneMembers } from '../gone-members.ts'
import { namesOfRemoved } from '../join/removed-nodes.ts'
import { memberAddressesManifest } from '../member-addresses.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** Who is a member is looked at all the while by storage/membership.ts: here it costs nothing. */
const intervalMs = 500
/** Somebody may have removed what servers that join are told. */
const tellIntervalMs = 60_000
/** Between two looks for members whose Node is gone. */
const goneIntervalMs = 10_000

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
    const gone = new GoneMembers({
      membership,
      log,
      hasNode: (name) => hasNode(context, name, signal),
      removedNodes: () => removedNodes(context, signal),
    })
    let told = { text: '', atMs: 0 }
    let lookedAtMs = 0
    for (;;) {
      await sleep(intervalMs, undefined, { signal, ref: false })
      await trouble.attempt(async () => {
        await learners.look(signal)
        const addresses = voterAddresses(membership)
        const nowMs = performance.now()
        if (addresses.length > 0 && (addresses.join() !== told.text || nowMs - told.atMs > tellIntervalMs)) {
          using api = await openApi(context.access.admin, signal)
          await api.apply(memberAddressesManifest(addresses))
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

async function hasNode({ access }: TaskContext, name: string, signal: AbortSignal): Promise<boolean> {
  using api = await openApi(access.admin, signal)
  return (await api.get(`/api/v1/nodes/${encodeURIComponent(name)}`)) !== undefined
}

async function removedNodes({ access }: TaskContext, signal: AbortSignal): Promise<ReadonlySet<string>> {
  using api = await openApi(access.admin, signal)
  return await namesOfRemoved(api)
}
