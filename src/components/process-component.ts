import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { SupervisedProcess } from '../supervisor/supervised-process.ts'
import type { Component, ComponentContext } from './component.ts'

/** Between two probes of a component that is not ready. */
const probeIntervalMs = 50
/** A component that ended this often without ever having been ready is given up: its user wants the reason now. */
const failuresBeforeGivingUp = 5

/**
 * How much a component's heap may grow, in percent, until it is collected again; Go's default is 100. Half of it
 * saves a tenth of the cluster's memory, and costs an idle one no measurable time.
 */
const garbagePercent = '50'

/** A component that is one program of the payload: all that there is to know of it. */
export interface ProcessRecipe
  extends Pick<Component, 'name' | 'needs' | 'provides' | 'policy' | 'readyTimeoutMs' | 'stopTimeoutMs'> {
  readonly args: readonly string[]
  /** Beside PATH and GOGC. */
  readonly env?: Readonly<Record<string, string>>
  readonly logFormat: 'klog' | 'logfmt'
  /** Those that it listens on, whose holder is named when one is taken. */
  readonly ports?: readonly number[]
  /** Writes the files that the process reads. */
  readonly prepare?: () => Promise<void>
  /** Resolves when the component does its work, rejects with the reason why not. */
  readonly probe: (signal: AbortSignal) => Promise<void>
}

/** A component that is a supervised process. After each restart it is probed until it is ready again. */
export function processComponent(
  recipe: ProcessRecipe,
  { payload, paths, log }: Pick<ComponentContext, 'payload' | 'paths' | 'log'>,
): Component {
  const { name, needs, provides, policy, readyTimeoutMs, stopTimeoutMs, prepare, probe, env } = recipe
  const supervised = new SupervisedProcess(
    {
      ...recipe,
      command: payload.bin(name),
      env: { PATH: `${payload.binDir}:${hostPath}`, GOGC: garbagePercent, ...env },
      recordDir: paths.processRecordsDir,
    },
    { log },
  )
  const stopped = new AbortController()

  async function untilReady(signal: AbortSignal, isHopeless: () => boolean): Promise<void> {
    for (;;) {
      const failure = await probe(signal).then(
        () => undefined,
        (error: unknown) => ({ error }),
      )
      if (failure === undefined) return supervised.markReady()
      if (signal.aborted || isHopeless()) {
        const reason = supervised.status().lastFailure?.message ?? describeError(failure.error)
        throw notReady({ name, reason })
      }
      await sleep(probeIntervalMs)
    }
  }

  return {
    ...{ name, needs, provides, policy, readyTimeoutMs, stopTimeoutMs },
    init: async () => prepare?.(),
    start: () => supervised.start(),
    async ready(signal) {
      const failedTooOften = () => supervised.status().restarts >= failuresBeforeGivingUp
      await untilReady(AbortSignal.any([signal, stopped.signal]), failedTooOften)
      supervised.onChange(({ state }) => {
        if (state === 'running') void untilReady(stopped.signal, () => false).catch(() => {})
      })
    },
    async stop(signal) {
      stopped.abort()
      await supervised.stop(signal)
    },
    status: () => supervised.status(),
  }
}

function notReady({ name, reason }: { name: string; reason: string }): AppError {
  return new AppError(`cannot start ${name}: ${reason}`, {
    code: 'COMPONENT_NOT_READY',
    remedy: `read the log lines of ${name} above; \`k8s check\` tests the machine`,
  })
}
