import type { Command } from './command.ts'
import { labCreate } from './lab/create.ts'
import { labDelete } from './lab/delete.ts'
import { labKubeconfig } from './lab/kubeconfig.ts'
import { labList } from './lab/list.ts'
import { labCut, labEnter, labHeal } from './lab/node.ts'

/** `k8s lab ...` */
export const labCommands: readonly Command[] = [
  labCreate,
  labList,
  labEnter,
  labCut,
  labHeal,
  labKubeconfig,
  labDelete,
]
