import type { Command } from './command.ts'
import { snapshotList } from './snapshot/list.ts'
import { snapshotPrune } from './snapshot/prune.ts'
import { snapshotRestore } from './snapshot/restore.ts'
import { snapshotSave } from './snapshot/save.ts'

/** `k8s snapshot ...` */
export const snapshotCommands: readonly Command[] = [
  snapshotSave,
  snapshotList,
  snapshotRestore,
  snapshotPrune,
]
