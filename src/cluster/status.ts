import { describeError } from '../base/errors.ts'
import { TimeLimit } from '../base/time-limit.ts'
import type { Component } from '../components/component.ts'
import type { NodeAccess } from '../components/node-access.ts'
import { pressuresOf, probeNode } from '../components/node.ts'
import type { MachineConfig } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { ComponentStatus, DaemonStatus } from '../control/messages.ts'
import type { Payload } from '../payload/payload.ts'
import type { UsageSampler } from '../supervisor/usage.ts'
import type { AddonMemory } from './addon-memory.ts'
import type { Board } from './condition.ts'
import { installedPayloads } from './tasks/payloads.ts'

const nodeProbeTimeoutMs = 2_000

interface StatusOptions {
  readonly role: DaemonStatus['role']
  readonly config: MachineConfig
  /** undefined: nothing is known yet, or there is no cluster to be a Node of. */
  readonly access: NodeAccess | undefined
  readonly paths: Paths
  readonly payload: Payload
  readonly startedAt: Date
  readonly components: readonly Component[]
  readonly board: Board
  readonly usage: UsageSampler
  readonly addonMemory: AddonMemory
}

/** What `k8s status` shows. The Node is asked for when somebody asks, never in between. */
export async function clusterStatus({
  role,
  config,
  access,
  paths,
  payload,
  startedAt,
  components,
  board,
  usage,
  addonMemory,
}: StatusOptions): Promise<DaemonStatus> {
  const { state, problems } = board.condition(components)
  const kubelet = components.find(({ provides }) => provides.includes('node'))
  // The Node's condition outlives a daemon that was killed: it says Ready before the new one has started anything.
  const isKubeletReady = kubelet?.status().state === 'ready'
  const node =
    isKubeletReady && access !== undefined
      ? await lookAtNode({ config, access })
      : { isReady: isKubeletReady, problems: [] }
  return {
    role,
    version: payload.version.gitVersion,
    startedAt: startedAt.toISOString(),
    nodeName: config.nodeName,
    nodeReady: node.isReady,
    state: state === 'ready' && node.problems.length > 0 ? 'degraded' : state,
    problems: [...problems, ...node.problems.map((problem) => `Node ${config.nodeName}: ${problem}`)],
    parts: addonMemory.addTo(board.parts()),
    components: components.map((component) => componentStatus(component, usage)),
    payloads: await installedPayloads(payload, paths),
  }
}

function componentStatus(component: Component, usage: UsageSampler): ComponentStatus {
  const status = component.status()
  const used = status.pid === undefined ? { memoryBytes: null, cpuMillicores: null } : usage.usage(status.pid)
  return { ...status, needs: component.needs, ...used }
}

async function lookAtNode(given: {
  config: MachineConfig
  access: NodeAccess
}): Promise<{ isReady: boolean; problems: string[] }> {
  using limit = new TimeLimit('look at the Node', nodeProbeTimeoutMs)
  try {
    return { isReady: true, problems: pressuresOf(await probeNode(given, limit.signal)) }
  } catch (error) {
    return { isReady: false, problems: [describeError(error)] }
  }
}
