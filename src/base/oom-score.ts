import { readFileSync, writeFileSync } from 'node:fs'

/*
 * Whom the kernel ends when there is no memory left (proc_pid_oom_score_adj(5)): a process with a lower score later,
 * one with -1000 never. Kubernetes gives pods -997 and more, and what keeps them less; children inherit it.
 */

/** The daemon with its datastore, and what a node cannot be without: as the kubelet and kube-proxy have it. */
export const nodeOomScore = -999

/** What only a cluster needs, and is soon there again: after every pod, before what is above. */
export const criticalOomScore = -998

/** As processes have it that nobody has said anything of. */
const usualOomScore = 0

/** Whether the kernel took it: a lower one than its own a process gives only with CAP_SYS_RESOURCE. */
export function setOomScore(pid: number, score: number): boolean {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(score))
    return true
  } catch {
    return false
  }
}

/** For the daemon itself. Where it may have no lower one, it takes back what its starter has raised, if that goes. */
export function shieldFromOom(): void {
  if (!setOomScore(process.pid, nodeOomScore) && ownOomScore() > usualOomScore) {
    setOomScore(process.pid, usualOomScore)
  }
}

/** Of commands, which may take much memory for their time, and nothing is lost with: not the daemon's, but their user's. */
export function commandOomScore(): number {
  return Math.max(ownOomScore(), usualOomScore)
}

function ownOomScore(): number {
  return Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))
}
