import { openApi } from '../../api/client.ts'
import { readNode } from '../../components/node.ts'
import type { Task, TaskContext } from './task.ts'

/** As kubeadm has it: what `kubectl get nodes` shows as ROLES, and who selects the machines of servers looks for. */
const label = 'node-role.kubernetes.io/control-plane'

/** A kubelet may not say of its own Node that it is a server's (admission plugin NodeRestriction). */
export const nodeRole: Task<TaskContext> = {
  name: 'node-role',
  purpose: 'show that the Node is a server',
  leaderOnly: false,
  async run(context, signal) {
    const { access, config, whenReady } = context
    await whenReady('node')
    const node = await readNode(context, signal)
    if (node === undefined || label in (node.metadata?.labels ?? {})) return
    using api = await openApi(access.admin, signal)
    const path = `/api/v1/nodes/${encodeURIComponent(config.nodeName)}`
    const written = await api.patch(path, { metadata: { labels: { [label]: '' } } })
    if (written === undefined) throw new Error('the Node has gone meanwhile')
  },
}
