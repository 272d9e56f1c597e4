import type { Command } from './command.ts'
import { nodeDrain } from './node/drain.ts'
import { nodeRemove } from './node/remove.ts'
import { nodeUncordon } from './node/uncordon.ts'

/** `k8s node ...` */
export const nodeCommands: readonly Command[] = [nodeDrain, nodeUncordon, nodeRemove]
