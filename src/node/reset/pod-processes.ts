import type { HostFiles } from '../facts/host-files.ts'

export interface PodProcess {
  readonly pid: number
  /** In clock ticks after the boot: with the pid it names one process for good. */
  readonly startTime: string
  readonly command: string
}

interface Process extends PodProcess {
  readonly parent: number
}

/** containerd's shims at this socket, each followed by its descendants: every process of a container is one. */
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
export function readStartTime(files: HostFiles, pid: number): string | undefined {
  return readProcess(files, pid)?.startTime
}

/** proc_pid_stat(5): "pid (command) state ppid ... starttime(22)"; the command may hold blanks and parentheses. */
function readProcess(files: HostFiles, pid: number): Process | undefined {
  const [, command, rest] = /^\d+ \((.*)\) (.*)$/s.exec(files.read(`/proc/${pid}/stat`) ?? '') ?? []
  const fields = rest?.split(' ')
  const state = fields?.[0]
  const startTime = fields?.[19]
  if (command === undefined || startTime === undefined || state === 'Z') return undefined
  return { pid, command, parent: Number(fields?.[1]), startTime }
}

function isShim(files: HostFiles, pid: number, containerdSocket: string): boolean {
  const [program = '', ...args] = (files.read(`/proc/${pid}/cmdline`) ?? '').split('\0')
  const socket = args[args.indexOf('-address') + 1]
  return (
    program.endsWith('containerd-shim-runc-v2') &&
    socket !== undefined &&
    files.realPath(socket) === files.realPath(containerdSocket)
  )
}
