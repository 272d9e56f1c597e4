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

/** Resolves when the Node's condition Ready is true, rejects with the reason why not. */
export async function probeNode(context: NodeContext, signal: AbortSignal): Promise<void> {
  const node = await readNode(context, signal)
  if (node === undefined) {
    // pkg/kubelet/kubelet_node_status.go: registrationCompleted
    throw new Error(
      'there is none: the kubelet registers it when it starts, so one that was deleted comes back with a restart of k8s',
    )
  }
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready')
  if (ready?.status !== 'True')
    throw new Error(`the Node is not Ready: ${ready?.message ?? 'it has no status yet'}`)
}
