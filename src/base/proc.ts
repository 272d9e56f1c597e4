import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/*
 * The one reader of what the kernel tells in /proc. What is parsed is parsed from text, too, for those that look at the
 * tree of another machine.
 */

/** What /proc/PID/stat says of a process; see proc_pid_stat(5). */
interface ProcessStat {
  /** The name of the program, which it may change; the kernel cuts it after 15 bytes. */
  readonly command: string
  /** R, S, D, T, Z ...: a zombie (Z, X) has ended and waits for its parent only. */
  readonly state: string
  readonly parentPid: number
  readonly session: number
  /** The time of a processor that all of its threads have used. */
  readonly processorMs: number
  /** The start in clock ticks since the machine's boot: with the pid it names one process for good. */
  readonly startTicks: number
}

/** USER_HZ: the unit of times in /proc, 100 on every architecture that Linux has left. */
const ticksPerSecond = 100

/** undefined: there is no such process. */
export function readStat(pid: number): ProcessStat | undefined {
  const text = readProc(`${pid}/stat`)
  return text === undefined ? undefined : parseStat(text)
}

export function parseStat(text: string): ProcessStat {
  // The command stands in parentheses and may hold spaces and parentheses itself.
  const end = text.lastIndexOf(')')
  const fields = text.slice(end + 2).split(' ')
  return {
    command: text.slice(text.indexOf('(') + 1, end),
    state: fields[0] ?? '',
    parentPid: Number(fields[1]),
    session: Number(fields[3]),
    processorMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond,
    startTicks: Number(fields[19]),
  }
}

/** How long ago, by the clock that goes on while the machine sleeps, a process began. */
export function ageMs({ startTicks }: Pick<ProcessStat, 'startTicks'>): number {
  const uptimeSeconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8'))
  return (uptimeSeconds - startTicks / ticksPerSecond) * 1000
}

/** The memory of a process, of pages that several share its part. undefined: it is gone or not ours to read. */
export function readProportionalBytes(pid: number): number | undefined {
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(readProc(`${pid}/smaps_rollup`) ?? '')?.[1]
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024
}

/** Of all of its threads, in steps of 10 ms; undefined: there is no such process. */
export function readProcessorTimeMs(pid: number): number | undefined {
  return readStat(pid)?.processorMs
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

/** The word that it was called by, which is a path or not; undefined: the process is gone, or of the kernel. */
export function readFirstArgument(pid: number): string | undefined {
  return readProc(`${pid}/cmdline`)?.split('\0', 1)[0] || undefined
}

/** The program that it runs, wherever that was when it was started; undefined: it is gone or not ours to read. */
export function readExecutable(pid: number): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/exe`))?.replace(/ \(deleted\)$/, '')
}

/** Whether it runs as this user, in all that the kernel asks for: real, effective, saved and for files. */
export function isOfUser(pid: number, userId: number): boolean {
  return isStatusOfUser(readProc(`${pid}/status`) ?? '', userId)
}

/** As isOfUser, of the text of /proc/PID/status. */
export function isStatusOfUser(status: string, userId: number): boolean {
  const ids = /^Uid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? []
  return ids.length > 0 && ids.every((id) => Number(id) === userId)
}

/** As mnt:[4026531841]; undefined when the process is gone or not ours to read. */
export function readMountNamespace(pid: number): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/ns/mnt`))
}

/** As pid:[4026531836]. */
export function ownPidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid')
}

/** A set of bits of /proc/PID/status: CapEff, SigIgn; see proc_pid_status(5). Empty where it does not say. */
export function parseMask(status: string, name: string): bigint {
  const hex = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1]
  return BigInt(`0x${hex ?? '0'}`)
}

/** A socket of this network namespace that accepts TCP connections. */
export interface Listener {
  readonly port: number
  readonly address: string
  readonly userId: number
  readonly inode: string
}

/** TCP_LISTEN of include/net/tcp_states.h. */
const listenState = '0A'

/** Reads the text of /proc/net/tcp or tcp6; see proc_net_tcp of the kernel's documentation. */
export function parseListeners(table: string): Listener[] {
  return table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state, , , , userId, , inode = ''] = line.trim().split(/\s+/)
      if (state !== listenState) return []
      const [address = '', port = ''] = local.split(':')
      return [
        { address: readAddress(address), port: Number.parseInt(port, 16), userId: Number(userId), inode },
      ]
    })
}

/** The kernel prints addresses as 32-bit words in the machine's (little-endian) order. */
function readAddress(hex: string): string {
  const bytes = Buffer.from(hex, 'hex').swap32()
  if (bytes.length === 4) return bytes.join('.')
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
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
