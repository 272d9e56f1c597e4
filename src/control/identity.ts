import { readFileSync, readlinkSync } from 'node:fs'
import type { DaemonIdentity } from './messages.ts'

/** This process, as a daemon introduces itself. */
export function ownIdentity(): DaemonIdentity {
  return { pid: process.pid, pidNamespace: ownPidNamespace(), startTicks: readStartTicks(process.pid) ?? 0 }
}

/** Whether this very process still runs. One of another pid namespace cannot be seen, and counts as gone. */
export function isRunning({ pid, pidNamespace, startTicks }: DaemonIdentity): boolean {
  return pidNamespace === ownPidNamespace() && readStartTicks(pid) === startTicks
}

function ownPidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid')
}

/** undefined: there is no such process, or only its zombie. See proc_pid_stat(5). */
function readStartTicks(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state = '', ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return /[ZX]/.test(state) ? undefined : Number(fields[18])
  } catch {
    return undefined
  }
}
