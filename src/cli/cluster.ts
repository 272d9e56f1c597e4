import { clusterReset } from './cluster/reset.ts'
import type { Command } from './command.ts'

/** `k8s cluster ...` */
export const clusterCommands: readonly Command[] = [clusterReset]
