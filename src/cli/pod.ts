import type { Command } from './command.ts'
import { podExec } from './pod/exec.ts'
import { podList } from './pod/list.ts'
import { podLogs } from './pod/logs.ts'

/** `k8s pod ...` */
export const podCommands: readonly Command[] = [podList, podLogs, podExec]
