import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import { writeCniConfig } from '../../components/pod-network.ts'
import { readNode } from '../../components/node.ts'
import type { Config, NodeConfig } from '../../config/config.ts'
import { readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { nodePodCidr } from '../../node/render/cni-config.ts'
import { Trouble } from '../trouble.ts'
import type { Task, NodeTaskContext } from './task.ts'

/** While the Node has no range yet, which its pods wait for: at first, and in the end, as there may be none left. */
const shortIntervalMs = 250
const longIntervalMs = 10_000
const growth = 1.1
/** It changes only when the Node is deleted and comes back. */
const calmIntervalMs = 60_000

/** CNI gives pods addresses of the range that the controller manager has given the Node (spec.podCIDR). */
export const podRange: Task = {
  name: 'pod-range',
  purpose: "follow the range of the Node's pods",
  leaderOnly: false,
  async run(context, signal) {
    const { config, log, board } = context
    if (config.cniConfDir !== undefined) return
    const purpose = 'write the configuration of CNI'
    const trouble = new Trouble({ ...podRange, purpose, board, log })
    await context.whenReady('api')
    let current = context.podCidr
    let waitMs = shortIntervalMs
    for (;;) {
      const podCidr = await assignedRange(context, signal)
      if (podCidr !== undefined && podCidr !== current) {
        if (await trouble.attempt(() => writeCniConfig(context, podCidr), signal)) {
          log.info({ podCidr, former: current }, 'pods get addresses of the range of the Node')
          current = podCidr
        }
      }
      if (current === podCidr && podCidr !== undefined) remember(context, podCidr)
      const isSettled = podCidr !== undefined && current === podCidr
      await sleep(isSettled ? calmIntervalMs : waitMs, undefined, { signal, ref: false })
      waitMs = isSettled ? shortIntervalMs : Math.min(waitMs * growth, longIntervalMs)
    }
  },
}

/** Of a new cluster the first Node has the first range; of one that has been there its Node says which it has. */
export function knownPodCidr({ clusterCidr }: NodeConfig, paths: Paths): string | undefined {
  return readNodeRecord(paths).podCidr ?? (existsSync(paths.database) ? undefined : nodePodCidr(clusterCidr))
}

/** Of a machine that has joined, its Node alone says it. */
export function rememberedPodCidr(paths: Paths): string | undefined {
  return readNodeRecord(paths).podCidr
}

/** Of several servers the one that creates the cluster has the first; others may have had it before any other. */
export function firstPodCidr({ clusterInit, clusterCidr }: Config, paths: Paths): string | undefined {
  const isCreated = existsSync(paths.clusterFacts) || existsSync(paths.memberDir)
  return clusterInit && !isCreated ? nodePodCidr(clusterCidr) : undefined
}

/** undefined: the Node is not there yet, has none yet, or the API server does not answer. */
async function assignedRange(context: NodeTaskContext, signal: AbortSignal): Promise<string | undefined> {
  const node = await readNode(context, signal).catch(() => undefined)
  const { podCIDR, podCIDRs = [podCIDR ?? ''] } = node?.spec ?? {}
  return podCIDRs.join(',') || undefined
}

/** For the next start, which need not wait for the Node then. A full disk is no reason to stop here. */
function remember({ paths, log }: NodeTaskContext, podCidr: string): void {
  try {
    if (readNodeRecord(paths).podCidr !== podCidr) updateNodeRecord(paths, { podCidr })
  } catch (error) {
    log.warn({ reason: describeError(error) }, "cannot remember the range of the Node's pods")
  }
}
