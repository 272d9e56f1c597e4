import { basename, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorCode } from '../base/errors.ts'
import { withoutLinks } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import {
  isAlive,
  isOfUser,
  listPids,
  readBootId,
  readEnvironment,
  readExecutable,
  readFirstArgument,
  readMountNamespace,
  readStat,
} from '../base/proc.ts'
import {
  componentMark,
  listRecordedNames,
  readRecord,
  recordDirMark,
  removeRecord,
  supervisorMark,
} from './records.ts'

/*
 * A leftover is a process that outlived the daemon which started it. Two ways lead to it:
 *
 *    its record     the pid, the start time, the boot and the component are those of a running process
 *    its marks      the environment names the component and the directory of the records, and the process
 *                     - leads a session, which tells a component from what it started: containerd's shims
 *                       have its environment, and must live on
 *                     - is in our mount namespace, which tells it from that of another cluster with the same paths
 *                     - runs the program of that name from a directory of ours, also from one that is removed: a
 *                       helper that became a daemon (of FUSE, of NFS) has the environment of who called it
 *
 * Either way it runs as our user: what others write into their environment says nothing.
 *
 * The second finds what was started in the instant before a crash, or while the disk was full. In
 * both, a number that now belongs to a stranger never matches.
 */

/** How often a process that is not our child is looked at while it ends. */
const lookIntervalMs = 20

/** Only a process inside a system call that hangs (a dead disk) is still there so long after SIGKILL. */
const killedLimitMs = 10_000

interface Leftover {
  readonly name: string
  readonly pid: number
  readonly startTicks: number
}

interface EndLeftoversOptions {
  readonly recordDir: string
  /** Where the programs of components are, at any depth: in this version and in earlier ones. */
  readonly programDirs: readonly string[]
  /** Names in the order in which they are ended, one after the other; others are ended first. */
  readonly order: readonly string[]
  /** From SIGTERM to SIGKILL, for each. */
  readonly stopTimeoutMs: number
  readonly log: Logger
  /** Ends what remains with SIGKILL when it fires. */
  readonly signal?: AbortSignal
}

/**
 * Ends all leftovers of `recordDir`, whether or not their component is still configured. For the
 * start of a daemon, which has to hold the data directory by then. Repeatable. Throws PROCESS_OWNED
 * when another daemon lives and supervises one of them (nothing is ended then), LEFTOVER_REMAINS when
 * one survives SIGKILL.
 */
export async function endLeftovers({ order, ...options }: EndLeftoversOptions): Promise<Leftover[]> {
  const leftovers = findLeftovers(options)
  leftovers.sort((left, right) => order.indexOf(left.name) - order.indexOf(right.name))
  for (const leftover of leftovers) refuseOwned(leftover)
  for (const leftover of leftovers) await endLeftover(leftover, options)
  for (const name of listRecordedNames(options.recordDir)) removeRecord(options.recordDir, name)
  return leftovers
}

type EndOptions = Omit<EndLeftoversOptions, 'order' | 'programDirs'>

/** As endLeftovers, for the one process that has a record of this name. */
export async function endRecorded(name: string, options: EndOptions): Promise<Leftover | undefined> {
  const leftover = findRecorded(options.recordDir, name)
  if (leftover === undefined) return undefined
  refuseOwned(leftover)
  await endLeftover(leftover, options)
  return leftover
}

/** Every leftover of the directory, found by record or by marks, in no order. */
export function findLeftovers({
  recordDir,
  programDirs,
}: Pick<EndLeftoversOptions, 'recordDir' | 'programDirs'>): Leftover[] {
  const leftovers = new Map<number, Leftover>()
  for (const name of listRecordedNames(recordDir)) {
    const leftover = findRecorded(recordDir, name)
    if (leftover !== undefined) leftovers.set(leftover.pid, leftover)
  }
  const mountNamespace = readMountNamespace(process.pid)
  // The kernel tells the paths of programs without links.
  const dirs = programDirs.map((dir) => withoutLinks(resolve(dir)))
  for (const pid of listPids()) {
    const stat = readStat(pid)
    if (stat === undefined || stat.session !== pid || leftovers.has(pid) || !isOurs(pid)) continue
    const environment = readEnvironment(pid)
    const name = environment.get(componentMark)
    if (name === undefined || environment.get(recordDirMark) !== resolve(recordDir)) continue
    if (readMountNamespace(pid) !== mountNamespace || !runsProgram(pid, name, dirs)) continue
    const leftover = { name, pid, startTicks: stat.startTicks }
    if (isAlive(leftover)) leftovers.set(pid, leftover)
  }
  return [...leftovers.values()]
}

function isOurs(pid: number): boolean {
  return isOfUser(pid, process.geteuid!())
}

/** Several programs may be one file that goes by its name: what it was called by counts, and where the file is. */
function runsProgram(pid: number, name: string, dirs: readonly string[]): boolean {
  const executable = readExecutable(pid) ?? ''
  return (
    basename(readFirstArgument(pid) ?? '') === name && dirs.some((dir) => executable.startsWith(`${dir}/`))
  )
}

function findRecorded(recordDir: string, name: string): Leftover | undefined {
  const record = readRecord(recordDir, name)
  if (record === undefined || record.bootId !== readBootId() || !isAlive(record)) return undefined
  // Pids of another pid namespace can be as small as those of the first processes here.
  if (!isOurs(record.pid) || readEnvironment(record.pid).get(componentMark) !== name) return undefined
  return { name, pid: record.pid, startTicks: record.startTicks }
}

function refuseOwned({ name, pid }: Leftover): void {
  const [supervisorPid = 0, startTicks = 0] = (readEnvironment(pid).get(supervisorMark) ?? '')
    .split(':')
    .map(Number)
  if (!isAlive({ pid: supervisorPid, startTicks })) return
  throw new AppError(`cannot take over ${name} (process ${pid}): process ${supervisorPid} supervises it`, {
    code: 'PROCESS_OWNED',
    component: name,
    pid,
    supervisorPid,
    remedy: `Stop process ${supervisorPid} first, or use another data directory.`,
  })
}

async function endLeftover(
  leftover: Leftover,
  { recordDir, stopTimeoutMs, log, signal }: EndOptions,
): Promise<void> {
  const { name, pid } = leftover
  log.warn({ component: name, pid }, 'ending what an earlier daemon left running')
  const hurried = signal?.aborted === true
  if (!hurried) send(leftover, 'SIGTERM')
  if (hurried || !(await untilGone(leftover, stopTimeoutMs, signal))) {
    send(leftover, 'SIGKILL')
    if (!(await untilGone(leftover, killedLimitMs))) {
      throw new AppError(`cannot end ${name} (process ${pid}), which an earlier daemon left running`, {
        code: 'LEFTOVER_REMAINS',
        component: name,
        pid,
        remedy: `Process ${pid} ignores SIGKILL, as in a system call that hangs: look at its disks, or reboot.`,
      })
    }
  }
  if (readRecord(recordDir, name)?.pid === pid) removeRecord(recordDir, name)
}

function send(leftover: Leftover, signal: NodeJS.Signals): void {
  try {
    if (isAlive(leftover)) process.kill(leftover.pid, signal)
  } catch (error) {
    // It ended between the look and the signal.
    if (errorCode(error) !== 'ESRCH') throw error
  }
}

/** Whether it was gone before the limit and the signal. */
async function untilGone(leftover: Leftover, limitMs: number, signal?: AbortSignal): Promise<boolean> {
  const endMs = performance.now() + limitMs
  while (isAlive(leftover)) {
    if (performance.now() >= endMs || signal?.aborted === true) return false
    await delay(lookIntervalMs)
  }
  return true
}
