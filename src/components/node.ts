import { openApi } from '../api/client.ts'
import type { MachineConfig } from '../config/config.ts'
import type { NodeAccess } from './node-access.ts'

/** What is looked at of this machine's Node. */
export interface Node {
  readonly metadata?: { readonly labels?: Readonly<Record<string, string>> }
  readonly spec?: { readonly podCIDR?: string; readonly podCIDRs?: readonly string[] }
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
      readonly lastHeartbeatTime?: string
    }[]
  }
}

interface AskerContext {
  readonly config: Pick<MachineConfig, 'nodeName'>
  readonly access: NodeAccess
}

/**
 * Asks the API server with the kubelet's own identity, which may read its Node and needs no rights beyond. undefined:
 * there is none. Rejects when there is no answer.
 */
export function readNode(context: AskerContext, signal: AbortSignal): Promise<Node | undefined> {
  return read<Node>('/api/v1/nodes', context, signal)
}

/** What is looked at of the Lease by which its kubelet says that it lives. */
interface Lease {
  readonly spec?: { readonly renewTime?: string; readonly leaseDurationSeconds?: number }
}

/** As `readNode`, the Lease of this machine's Node. */
export function readLease(context: AskerContext, signal: AbortSignal): Promise<Lease | undefined> {
  return read<Lease>('/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases', context, signal)
}

async function read<Type>(
  where: string,
  { config, access }: AskerContext,
  signal: AbortSignal,
): Promise<Type | undefined> {
  using api = await openApi(access, signal)
  return await api.get<Type>(`${where}/${encodeURIComponent(config.nodeName)}`)
}

function readyOf({ status }: Node) {
  return status?.conditions?.find(({ type }) => type === 'Ready')
}

/** When its kubelet has reported last, where it says so. */
export function reportedAt(node: Node): string | undefined {
  return readyOf(node)?.lastHeartbeatTime
}

/** Resolves with the Node when its condition Ready is true, rejects with the reason why not. */
export async function probeNode(context: AskerContext, signal: AbortSignal): Promise<Node> {
  const node = await readNode(context, signal)
  if (node === undefined) {
    // pkg/kubelet/kubelet_node_status.go: registrationCompleted
    throw new Error(
      'this machine has no Node: the kubelet registers it when it starts, so one that was deleted comes back with a restart of k8s',
    )
  }
  const ready = readyOf(node)
  if (ready?.status !== 'True')
    throw new Error(`the Node is not Ready: ${ready?.message ?? 'it has no status yet'}`)
  return node
}

/** Why a Node that is Ready takes no new pods, and has perhaps ended some, a sentence each. */
export function pressuresOf({ status }: Node): string[] {
  return (status?.conditions ?? [])
    .filter((condition) => condition.type.endsWith('Pressure') && condition.status === 'True')
    .map(({ type, message = 'it says no more' }) => `it takes no new pods: ${type}, ${message}`)
}

/** The kubelet reports every five minutes when nothing changes, unless its user wants it otherwise (nodeStatusReportFrequency). */
const reportLimitMs = 12 * 60_000
/** It renews its Lease four times in the Lease's duration, unless that is wanted otherwise, too. */
const defaultLeaseSeconds = 40
const leaseDurationsLimit = 3

/**
 * Tells a Node that is Ready from one of which that is only still written down: where the API server takes no writes (a
 * webhook that refuses all), nobody can write the opposite. By the time that passes, whatever the clock is set to. A
 * kubelet that reports rarely renews its Lease all the same, which is only looked at then.
 */
export class Reports {
  readonly #report = new Sameness()
  readonly #renewal = new Sameness()

  /** Throws when the same report, and the same renewal, has been the last one for too long. */
  async requireNew(
    report: string | undefined,
    { lease, nowMs = performance.now() }: { lease: () => Promise<Lease | undefined>; nowMs?: number },
  ): Promise<void> {
    if (this.#report.lastsMs(report, nowMs) < reportLimitMs) return
    const { renewTime, leaseDurationSeconds = defaultLeaseSeconds } = (await lease())?.spec ?? {}
    const limitMs = renewTime === undefined ? 0 : leaseDurationSeconds * 1000 * leaseDurationsLimit
    if (this.#renewal.lastsMs(renewTime ?? '', nowMs) < limitMs) return
    throw new Error(`the kubelet could not report since ${report}, so whether the Node is Ready is not known`)
  }
}

/** How long a text has been the same; what does not exist is always new. */
class Sameness {
  #last: string | undefined
  #sinceMs = 0

  lastsMs(text: string | undefined, nowMs: number): number {
    if (text === undefined || text !== this.#last) {
      this.#last = text
      this.#sinceMs = nowMs
    }
    return nowMs - this.#sinceMs
  }
}
