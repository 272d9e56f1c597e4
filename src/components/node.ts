import { request } from '../base/http.ts'
import { readIdentity } from '../pki/pki.ts'
import type { ComponentContext } from './component.ts'
import { apiserverUrl } from './probe.ts'

/** What is looked at of this machine's Node. */
export interface Node {
  readonly spec?: { readonly podCIDR?: string }
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
      readonly lastHeartbeatTime?: string
    }[]
  }
}

type NodeContext = Pick<ComponentContext, 'config' | 'pki'>

/**
 * Asks the API server with the kubelet's own identity, which may read its Node and needs no rights beyond. undefined:
 * there is none. Rejects when there is no answer.
 */
export async function readNode({ config, pki }: NodeContext, signal: AbortSignal): Promise<Node | undefined> {
  const url = `${apiserverUrl(config)}/api/v1/nodes/${encodeURIComponent(config.nodeName)}`
  const { status, body } = await request({ url, tls: await readIdentity(pki, 'kubelet-client'), signal })
  if (status === 404) return undefined
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  return JSON.parse(body) as Node
}

function readyOf({ status }: Node) {
  return status?.conditions?.find(({ type }) => type === 'Ready')
}

/** When its kubelet has reported last, where it says so. */
export function reportedAt(node: Node): string | undefined {
  return readyOf(node)?.lastHeartbeatTime
}

/** Resolves with the Node when its condition Ready is true, rejects with the reason why not. */
export async function probeNode(context: NodeContext, signal: AbortSignal): Promise<Node> {
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

/** The kubelet reports every five minutes when nothing changes (nodeStatusReportFrequency). */
const reportLimitMs = 12 * 60_000

/**
 * Tells a Node that is Ready from one of which that is only still written down: where the API server takes no writes (a
 * webhook that refuses all), nobody can write the opposite. By the time that passes, whatever the clock is set to.
 */
export class Reports {
  #last: string | undefined
  #sinceMs = 0

  /** Throws when the same report has been the last one for too long. */
  requireNew(report: string | undefined, nowMs = performance.now()): void {
    if (report === undefined || report !== this.#last) {
      this.#last = report
      this.#sinceMs = nowMs
    }
    if (nowMs - this.#sinceMs < reportLimitMs) return
    throw new Error(
      `the kubelet could not report since ${this.#last}, so whether the Node is Ready is not known`,
    )
  }
}
