import { AppError } from '../base/errors.ts'
import { nodeOomScore } from '../base/oom-score.ts'
import { hostPath } from '../node/facts/host-path.ts'
import type { Backoff } from '../supervisor/backoff.ts'
import type { RecordListener } from '../supervisor/logs.ts'
import { SupervisedProcess } from '../supervisor/supervised-process.ts'
import type { Component, MachineContext } from './component.ts'
import {
  defaultTiming,
  type Probe,
  probeLoop,
  type ProbeLoopOptions,
  type ProbeTiming,
} from './probe-loop.ts'

/** A fatal component that ended this often without having been ready is given up: its user wants the reason now. */
const failuresBeforeGivingUp = 5

/** How long a component that has answered before may be silent until it is killed and started again. */
const defaultHangLimitMs = 60_000

/**
 * How much a component's heap may grow, in percent, until it is collected again; Go's default is 100. Half of it
 * saves a tenth of the cluster's memory, and costs an idle one no measurable time.
 */
const garbagePercent = '50'

/** A component that is one program of the payload: all that there is to know of it. */
export interface ProcessRecipe
  extends Pick<Component, 'name' | 'needs' | 'provides' | 'policy' | 'readyTimeoutMs' | 'stopTimeoutMs'> {
  /** Asked for each start of the process. */
  readonly args: () => readonly string[]
  /** Beside PATH and GOGC. */
  readonly env?: Readonly<Record<string, string>>
  readonly logFormat: 'klog' | 'logfmt'
  /** For what it says of something that the daemon tells in its own way. */
  readonly onRecord?: RecordListener
  /** Those that it listens on, whose holder is named when one is taken. */
  readonly ports?: readonly number[]
  /** When the kernel ends it for want of memory; default: as late as the daemon. */
  readonly oomScore?: number
  /** Writes the files that the process reads. */
  readonly prepare?: () => Promise<void>
  /** Resolves when the component does its work, rejects with the reason why not. */
  readonly probe: Probe
  /**
   * For a component that may answer well without doing its work, which no restart would change: resolves when it
   * answers. It is killed when this fails for as long as its limit; without it, when `probe` does.
   */
  readonly alive?: Probe
  /** One minute, unless a restart costs others more than that. */
  readonly hangLimitMs?: number
  /** What differs from defaultTiming and defaultBackoff. */
  readonly timing?: Partial<ProbeTiming>
  readonly backoff?: Partial<Backoff>
}

/** What those have in common that are clients of the API and nothing else. */
export function apiClient({ credentials }: Pick<MachineContext, 'credentials'>) {
  return {
    needs: ['api'],
    provides: [],
    policy: 'degraded',
    logFormat: 'klog',
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    prepare: async () => void (await credentials),
  } satisfies Partial<ProcessRecipe>
}

/** A component that is a supervised process. Each of its lives has a probe loop of its own (probe-loop.ts). */
export function processComponent(
  recipe: ProcessRecipe,
  context: Pick<MachineContext, 'payload' | 'paths' | 'log'>,
): Component {
  const { name, needs, provides, policy, readyTimeoutMs, stopTimeoutMs, prepare } = recipe
  const supervised = new SupervisedProcess(
    {
      oomScore: nodeOomScore,
      ...recipe,
      get args() {
        return recipe.args()
      },
      command: context.payload.bin(name),
      env: { PATH: `${context.payload.binDir}:${hostPath}`, GOGC: garbagePercent, ...recipe.env },
      recordDir: context.paths.processRecordsDir,
    },
    { log: context.log, backoff: recipe.backoff ?? {} },
  )
  watchLives(supervised, {
    ...{ supervised, probe: recipe.probe, alive: recipe.alive },
    hangLimitMs: recipe.hangLimitMs ?? defaultHangLimitMs,
    ports: recipe.ports ?? [],
    timing: { ...defaultTiming, ...recipe.timing },
    log: context.log.child({ component: name }),
  })
  // What waits without a limit for its storage also ends when that goes away.
  const isGivenUp = policy === 'fatal' && Number.isFinite(readyTimeoutMs)
  const failuresLimit = isGivenUp ? failuresBeforeGivingUp : Number.POSITIVE_INFINITY

  return {
    ...{ name, needs, provides, policy, readyTimeoutMs, stopTimeoutMs },
    init: async () => prepare?.(),
    start: () => supervised.start(),
    ready: (signal) => untilReady(supervised, { signal, failuresLimit }),
    stop: (signal) => supervised.stop(signal),
    status: () => supervised.status(),
  }
}

/** From each spawn to its exit or to the stop, one loop. */
function watchLives(supervised: SupervisedProcess, options: Omit<ProbeLoopOptions, 'life'>): void {
  let life: { pid: number; end: AbortController } | undefined
  supervised.onChange(({ pid, state }) => {
    const livingPid = state === 'stopping' ? undefined : pid
    if (livingPid === life?.pid) return
    life?.end.abort()
    life = undefined
    if (livingPid === undefined) return
    life = { pid: livingPid, end: new AbortController() }
    void probeLoop({ ...options, life: life.end.signal })
  })
}

/** Rejects with the reason why not when the signal fires, when it has failed too often, and when it is stopped. */
function untilReady(
  supervised: SupervisedProcess,
  { signal, failuresLimit }: { signal: AbortSignal; failuresLimit: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (settled: () => void) => {
      subscription[Symbol.dispose]()
      signal.removeEventListener('abort', look)
      settled()
    }
    const look = () => {
      const { name, state, restarts, reason, lastFailure } = supervised.status()
      if (state === 'ready') return settle(resolve)
      const isOver = state === 'stopping' || state === 'stopped'
      if (!isOver && !signal.aborted && restarts < failuresLimit) return
      const why = lastFailure?.message ?? reason ?? `it is ${state}`
      settle(() => reject(notReady(name, why)))
    }
    const subscription = supervised.onChange(look)
    signal.addEventListener('abort', look)
    look()
  })
}

function notReady(name: string, reason: string): AppError {
  return new AppError(`cannot start ${name}: ${reason}`, {
    code: 'COMPONENT_NOT_READY',
    remedy: `read the log lines of ${name} above; \`k8s check\` tests the machine`,
  })
}
