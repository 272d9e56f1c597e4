import { readlinkSync } from 'node:fs'
import { listPids, readCommand } from '../../base/proc.ts'
import type { HostFiles } from '../facts/host-files.ts'
import { isBelow } from '../facts/mounts.ts'

const shownLimit = 3

/** Who keeps a mount in use: "sh (4711), tail (4712)"; '' when nobody is visible. Reads the descriptors of all processes. */
export function describeHolders(files: HostFiles, mountPoint: string): string {
  const holders = listPids().filter((pid) => holds(files, pid, mountPoint))
  const shown = holders.slice(0, shownLimit).map((pid) => `${readCommand(pid) ?? 'a process'} (${pid})`)
  return [...shown, ...(holders.length > shownLimit ? ['others'] : [])].join(', ')
}

function holds(files: HostFiles, pid: number, mountPoint: string): boolean {
  const links = ['cwd', 'root', 'exe', ...files.list(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`)]
  return links.some((name) => {
    try {
      return isBelow(readlinkSync(files.path(`/proc/${pid}/${name}`)), mountPoint)
    } catch {
      // It has ended meanwhile, or is a thread of the kernel.
      return false
    }
  })
}
