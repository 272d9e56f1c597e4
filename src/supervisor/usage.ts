import { ageMs, readProportionalBytes, readStat } from '../base/proc.ts'

/** The time over which the use of a processor is told. */
const windowMs = 60_000

/** Between two looks: as many as a window has are kept. */
const intervalMs = 10_000

/** The memory of a process costs the kernel a walk through all of it: whoever waits for a start asks four times a second. */
const memoryAgeMs = 2_000

/** What a process uses: null where the kernel does not say, since it is gone or belongs to somebody else. */
export interface Usage {
  /** Proportional set size: pages that processes share are split between them. */
  readonly memoryBytes: number | null
  /** Of the last minute, or of its life where that is shorter. */
  readonly cpuMillicores: number | null
}

interface Sample {
  readonly atMs: number
  readonly processorMs: number
}

interface History {
  readonly startTicks: number
  readonly samples: Sample[]
}

interface UsageSamplerOptions {
  /** The processes that are looked at; they may change. */
  readonly pids: () => readonly number[]
  /** A steady clock. */
  readonly nowMs?: () => number
  /** Default: what the kernel says. undefined: there is no such process. */
  readonly look?: (pid: number) => Look | undefined
  readonly readMemory?: (pid: number) => number | undefined
}

/** What is seen of a process. */
export interface Look {
  readonly startTicks: number
  readonly processorMs: number
  readonly ageMs: number
}

function lookAt(pid: number): Look | undefined {
  const stat = readStat(pid)
  return stat === undefined ? undefined : { ...stat, ageMs: ageMs(stat) }
}

/**
 * Looks at the processor time of some processes now and then, which costs a read of one small file each, so that
 * their use can be told over a time in which the kernel's steps of 10 ms do not show.
 */
export class UsageSampler {
  readonly #pids: () => readonly number[]
  readonly #nowMs: () => number
  readonly #look: (pid: number) => Look | undefined
  readonly #readMemory: (pid: number) => number | undefined
  readonly #timer: NodeJS.Timeout
  readonly #histories = new Map<number, History>()
  readonly #memories = new Map<number, { atMs: number; bytes: number | null }>()

  constructor(options: UsageSamplerOptions) {
    const { pids, nowMs = () => performance.now(), look = lookAt } = options
    this.#pids = pids
    this.#nowMs = nowMs
    this.#look = look
    this.#readMemory = options.readMemory ?? readProportionalBytes
    this.#timer = setInterval(() => this.sample(), intervalMs).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  /** One look at all of them; those that are gone are forgotten. */
  sample(): void {
    const pids = new Set(this.#pids())
    for (const known of [this.#histories, this.#memories]) {
      for (const pid of known.keys()) if (!pids.has(pid)) known.delete(pid)
    }
    for (const pid of pids) this.#keep(pid)
  }

  usage(pid: number): Usage {
    return { memoryBytes: this.#memoryBytes(pid), cpuMillicores: this.#millicores(pid) }
  }

  #memoryBytes(pid: number): number | null {
    const nowMs = this.#nowMs()
    const known = this.#memories.get(pid)
    if (known !== undefined && nowMs - known.atMs < memoryAgeMs) return known.bytes
    const bytes = this.#readMemory(pid) ?? null
    this.#memories.set(pid, { atMs: nowMs, bytes })
    return bytes
  }

  #keep(pid: number): void {
    const look = this.#look(pid)
    if (look === undefined) return
    const { samples } = this.#historyOf(pid, look.startTicks)
    const atMs = this.#nowMs()
    samples.push({ atMs, processorMs: look.processorMs })
    // The oldest one that is kept is as old as the window, or older by less than an interval.
    while (samples.length > 1 && samples[1]!.atMs <= atMs - windowMs) samples.shift()
  }

  /** A new one for a process that has the number of an earlier one. */
  #historyOf(pid: number, startTicks: number): History {
    const known = this.#histories.get(pid)
    if (known?.startTicks === startTicks) return known
    const history = { startTicks, samples: [] }
    this.#histories.set(pid, history)
    return history
  }

  #millicores(pid: number): number | null {
    const look = this.#look(pid)
    if (look === undefined) return null
    const nowMs = this.#nowMs()
    const birth = { atMs: nowMs - look.ageMs, processorMs: 0 }
    const [oldest = birth] = this.#historyOf(pid, look.startTicks).samples
    const from = look.ageMs <= windowMs ? birth : oldest
    return Math.round(((look.processorMs - from.processorMs) / Math.max(nowMs - from.atMs, 1)) * 1000)
  }
}
