import { isAlive, ownPidNamespace, readStat } from '../base/proc.ts'
import type { DaemonIdentity } from './messages.ts'

/** This process, as a daemon introduces itself. */
export function ownIdentity(): DaemonIdentity {
  return {
    pid: process.pid,
    pidNamespace: ownPidNamespace(),
    startTicks: readStat(process.pid)?.startTicks ?? 0,
  }
}

/** Whether this very process still runs. One of another pid namespace cannot be seen, and counts as gone. */
export function isRunning({ pid, pidNamespace, startTicks }: DaemonIdentity): boolean {
  return pidNamespace === ownPidNamespace() && isAlive({ pid, startTicks })
}
