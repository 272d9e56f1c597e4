import { isStatusOfUser, parseStat } from '../../base/proc.ts'
import type { HostFiles } from '../facts/host-files.ts'

interface PodProcess {
  readonly pid: number
  /** In clock ticks after the boot: with the pid it names one process for good. */
  readonly startTicks: number
  readonly command: string
}

interface Process extends PodProcess {
  readonly parent: number
}

/**
 * containerd's shims at this socket, each followed by its descendants: every process of a container is one. Shims are our
 * user's: by its arguments anybody's process could be one.
 */
export function readPodProcesses(files: HostFiles, containerdSocket: string): PodProcess[] {
  const processes = files.list('/proc').flatMap((name) => {
    const process = /^\d+$/.test(name) ? readProcess(files, Number(name)) : undefined
    return process === undefined ? [] : [process]
  })
  const children = Map.groupBy(processes, ({ parent }) => parent)
  const withDescendants = (process: Process): Process[] => [
    process,
    ...(children.get(process.pid) ?? []).flatMap(withDescendants),
  ]
  return processes.filter(({ pid }) => isShim(files, pid, containerdSocket)).flatMap(withDescendants)
}

/** undefined: it has ended. */
export function readStartTicks(files: HostFiles, pid: number): number | undefined {
  return readProcess(files, pid)?.startTicks
}

function readProcess(files: HostFiles, pid: number): Process | undefined {
  const text = files.read(`/proc/${pid}/stat`)
  if (text === undefined) return undefined
  const { command, parentPid, startTicks, state } = parseStat(text)
  return state === 'Z' ? undefined : { pid, command, parent: parentPid, startTicks }
}

function isShim(files: HostFiles, pid: number, containerdSocket: string): boolean {
  const [program = '', ...args] = (files.read(`/proc/${pid}/cmdline`) ?? '').split('\0')
  const socket = args[args.indexOf('-address') + 1]
  return (
    program.endsWith('containerd-shim-runc-v2') &&
    isStatusOfUser(files.read(`/proc/${pid}/status`) ?? '', process.geteuid!()) &&
    socket !== undefined &&
    files.realPath(socket) === files.realPath(containerdSocket)
  )
}
