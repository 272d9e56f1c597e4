import { AppError } from '../../base/errors.ts'
import { request } from '../../base/http.ts'
import { readNode } from '../../components/node.ts'
import { apiserverUrl } from '../../components/probe.ts'
import { readIdentity } from '../../pki/pki.ts'
import type { Task, TaskContext } from './task.ts'

/** As kubeadm has it: what `kubectl get nodes` shows as ROLES, and who selects the machines of servers looks for. */
const label = 'node-role.kubernetes.io/control-plane'

/** A kubelet may not say of its own Node that it is a server's (admission plugin NodeRestriction). */
export const nodeRole: Task<TaskContext> = {
  name: 'node-role',
  purpose: 'show that the Node is a server',
  leaderOnly: false,
  async run(context, signal) {
    const { config, pki, whenReady } = context
    await whenReady('node')
    const node = await readNode(context, signal)
    if (node === undefined || label in (node.metadata?.labels ?? {})) return
    const { status } = await request({
      ...{ url: `${apiserverUrl(config)}/api/v1/nodes/${encodeURIComponent(config.nodeName)}`, signal },
      ...{ method: 'PATCH', body: JSON.stringify({ metadata: { labels: { [label]: '' } } }) },
      headers: { 'content-type': 'application/merge-patch+json' },
      tls: await readIdentity(pki, 'admin-client'),
    })
    if (status !== 200) throw new AppError(`the API server answers ${status}`, { code: 'NODE_ROLE' })
  },
}
