import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** What /proc/PID/stat says of a process; see proc_pid_stat(5). */
export interface ProcessStat {
  /** R, S, D, T, Z ...: a zombie (Z, X) has ended and waits for its parent only. */
  readonly state: string
  readonly parentPid: number
  readonly session: number
  /** The start in clock ticks since the machine's boot: with the pid it names one process for good. */
  readonly startTicks: number
}

/** undefined: there is no such process. */
export function readStat(pid: number): ProcessStat | undefined {
  const text = readProc(`${pid}/stat`)
  if (text === undefined) return undefined
  // The command stands in parentheses and may hold spaces and parentheses itself.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return {
    state: fields[0] ?? '',
    parentPid: Number(fields[1]),
    session: Number(fields[3]),
    startTicks: Number(fields[19]),
  }
}

/** USER_HZ: the unit of times in /proc, 100 on every architecture that Linux has left. */
const ticksPerSecond = 100

/** Of all of its threads, in steps of 10 ms; undefined: there is no such process. */
export function readProcessorTimeMs(pid: number): number | undefined {
  const text = readProc(`${pid}/stat`)
  if (text === undefined) return undefined
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond
}

/** Whether exactly this process still runs. Its zombie does not. */
export function isAlive({ pid, startTicks }: { pid: number; startTicks: number }): boolean {
  const stat = readStat(pid)
  return stat !== undefined && stat.startTicks === startTicks && !/[ZX]/.test(stat.state)
}

/** The environment that the process was started with; empty when it is gone or not ours to read. */
export function readEnvironment(pid: number): ReadonlyMap<string, string> {
  const entries = (readProc(`${pid}/environ`) ?? '').split('\0')
  return new Map(
    entries.map((entry) => {
      const at = entry.indexOf('=')
      return [entry.slice(0, at), entry.slice(at + 1)] as const
    }),
  )
}

const commandLengthLimit = 120

/** The words before the first option: options may carry secrets. undefined: the process is gone. */
export function readCommand(pid: number): string | undefined {
  const words = (readProc(`${pid}/cmdline`) ?? '').split(/[\0 ]+/)
  const end = words.findIndex((word, index) => index > 0 && (word === '' || word.startsWith('-')))
  const command = words.slice(0, end === -1 ? undefined : end).join(' ')
  return (command || readProc(`${pid}/comm`)?.trim())?.slice(0, commandLengthLimit)
}

export function listPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** As mnt:[4026531841]; undefined when the process is gone or not ours to read. */
export function readMountNamespace(pid: number): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/ns/mnt`))
}

/** Changes with every boot, so that a pid and its start ticks are never taken for those of an earlier one. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

function readProc(path: string): string | undefined {
  return unlessGone(() => readFileSync(`/proc/${path}`, 'utf8'))
}

/** A process may end between any two reads. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
