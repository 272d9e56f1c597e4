import { readdirSync, readFileSync } from 'node:fs'
import type { Machine } from './machine.ts'

/** Of a cluster's components, in the order of their start; the datastore is a thread of the daemon. */
export const processNames = [
  'containerd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
] as const

/** A process inside a machine, numbered as the machine numbers it. */
export interface MachineProcess {
  readonly pid: number
  readonly parentPid: number
  /** The program's name as started: argv[0] without its directories. */
  readonly name: string
  readonly arguments: readonly string[]
  /** Clock ticks after boot, field 22 of stat: tells a process from a later one of the same number. */
  readonly startTime: number
}

/** All living processes of the machine, those in its containers too. */
export function processesOf(machine: Machine): MachineProcess[] {
  const found: MachineProcess[] = []
  for (const pid of readdirSync(machine.path('/proc'))) {
    if (!/^\d+$/.test(pid)) continue
    const process = readProcess(machine, Number(pid))
    if (process !== undefined) found.push(process)
  }
  return found
}

/** Those whose argv[0] is `name`: processesNamed(machine, 'kubelet'). */
export function processesNamed(machine: Machine, name: string): MachineProcess[] {
  return processesOf(machine).filter((process) => process.name === name)
}

/** Signals all that have one of the names; there may be none. */
export async function signalNamed(
  machine: Machine,
  signal: NodeJS.Signals,
  names: readonly string[],
): Promise<void> {
  const pids = names.flatMap((name) => processesNamed(machine, name).map(({ pid }) => String(pid)))
  if (pids.length > 0)
    await machine.exec(['kill', '-s', signal.slice('SIG'.length), ...pids], { check: false })
}

/** The only process of that name; throws when there is none or when one runs twice. */
export function processNamed(machine: Machine, name: string): MachineProcess {
  const found = processesNamed(machine, name)
  const [only] = found
  if (only === undefined || found.length > 1) {
    throw new Error(`${found.length} processes are named ${name}: ${found.map((one) => one.pid).join(' ')}`)
  }
  return only
}

/** The resident memory of a process in bytes, pages that are shared counted by their share. */
export function memoryBytes(machine: Machine, pid: number): number {
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(machine.read(`/proc/${pid}/smaps_rollup`))?.[1]
  return Number(kibibytes) * 1024
}

/** User and system time of a process in milliseconds, its ended children not included. */
export function cpuTimeMs(machine: Machine, pid: number): number {
  const fields = statFields(machine, pid)
  // USER_HZ is 100 on every Linux that Node runs on.
  return (Number(fields[11]) + Number(fields[12])) * 10
}

function readProcess(machine: Machine, pid: number): MachineProcess | undefined {
  try {
    const words = machine.read(`/proc/${pid}/cmdline`).split('\0').slice(0, -1)
    const fields = statFields(machine, pid)
    if (words.length === 0 || fields[0] === 'Z') return undefined
    return {
      pid,
      parentPid: Number(fields[1]),
      name: (words[0] ?? '').split('/').at(-1) ?? '',
      arguments: words.slice(1),
      startTime: Number(fields[19]),
    }
  } catch {
    // It ended between the listing and the reading.
    return undefined
  }
}

/** The fields of stat from the third, the state, on. The second may hold blanks and brackets. */
function statFields(machine: Machine, pid: number): string[] {
  const stat = machine.read(`/proc/${pid}/stat`)
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** Host pids of processes whose cgroup is the machine's or below it. */
export function processesInCgroup(id: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(`/${id}`)
      } catch {
        return false
      }
    })
}
