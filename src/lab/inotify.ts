import { readFile } from 'node:fs/promises'
import { AppError } from '../base/errors.ts'
import type { LabNode } from './state.ts'

const limitFile = '/proc/sys/fs/inotify/max_user_instances'
/** What a node's processes have open (counted; Kubernetes 1.37): kube-apiserver 7, kubelet 6, kube-controller-manager 4, containerd 2, kube-scheduler 1. */
const instances = { server: 20, agent: 8 } as const
/** For what else root runs on the machine, and for pods. */
const reserve = 24
const enough = 8192

/**
 * Nodes of a lab share what the kernel lets root have, of which a machine has 128 by itself: a kubelet that gets none does not start. Throws
 * LAB_INOTIFY when those of all labs need more.
 */
export async function requireInotify(
  nodes: readonly Pick<LabNode, 'role'>[],
  file = limitFile,
): Promise<void> {
  const limit = Number(await readFile(file, 'utf8').catch(() => 'Infinity'))
  const needed = nodes.reduce((sum, { role }) => sum + instances[role], reserve)
  if (needed <= limit) return
  throw new AppError(
    `cannot run ${nodes.length} nodes on this machine: they need some ${needed} instances of inotify, and fs.inotify.max_user_instances is ${limit}`,
    { code: 'LAB_INOTIFY', remedy: `sysctl -w fs.inotify.max_user_instances=${enough}` },
  )
}
