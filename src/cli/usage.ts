import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** Time over which CPU use is measured. */
const sampleMs = 250

/** USER_HZ: the unit of the times in /proc, 100 on every architecture that Linux has left. */
const ticksPerSecond = 100

/** What a process uses: null where /proc does not say, since it is gone or belongs to somebody else. */
export interface Usage {
  /** Proportional set size: pages that processes share are split between them. */
  readonly memoryBytes: number | null
  readonly cpuMillicores: number | null
}

/** The use of each process, over one common sample. */
export async function measureUsage(pids: readonly number[]): Promise<ReadonlyMap<number, Usage>> {
  const begun = performance.now()
  const before = pids.map(cpuTicks)
  await sleep(pids.length === 0 ? 0 : sampleMs)
  const seconds = (performance.now() - begun) / 1000
  return new Map(
    pids.map((pid, index) => {
      const [from, to] = [before[index], cpuTicks(pid)]
      const isKnown = from !== undefined && to !== undefined
      const cpuMillicores = isKnown ? Math.round(((to - from) / ticksPerSecond / seconds) * 1000) : null
      return [pid, { memoryBytes: proportionalSetSize(pid) ?? null, cpuMillicores }]
    }),
  )
}

function cpuTicks(pid: number): number | undefined {
  const stat = read(`/proc/${pid}/stat`)
  if (stat === undefined) return undefined
  // The command's name may hold spaces and parentheses: fields are counted from its end (proc_pid_stat(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

function proportionalSetSize(pid: number): number | undefined {
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? '')?.[1]
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
