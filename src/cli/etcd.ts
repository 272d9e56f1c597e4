import type { Command } from './command.ts'
import { etcdDefrag } from './etcd/defrag.ts'
import { etcdLeave } from './etcd/leave.ts'
import { etcdMembers } from './etcd/members.ts'

/** `k8s etcd ...`: the etcd of the servers. */
export const etcdCommands: readonly Command[] = [etcdMembers, etcdDefrag, etcdLeave]
