import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { type ProcessSpec, SupervisedProcess } from '../supervisor/supervised-process.ts'
import type { Component, ComponentName } from './component.ts'

/** Between two probes of a component that is not ready. */
const probeIntervalMs = 50
/** A component that ended this often without ever having been ready is given up: its user wants the reason now. */
const failuresBeforeGivingUp = 5

export interface ProcessComponentOptions {
  readonly spec: ProcessSpec & { readonly name: ComponentName }
  readonly needs: readonly ComponentName[]
  readonly readyTimeoutMs: number
  /** Writes the files that the process reads. */
  readonly prepare?: () => Promise<void>
  /** Resolves when the component does its work, rejects with the reason why not. */
  readonly probe: (signal: AbortSignal) => Promise<void>
  readonly log: Logger
}

/** A component that is a supervised process. After each restart it is probed until it is ready again. */
export function processComponent(options: ProcessComponentOptions): Component {
  const { spec, needs, readyTimeoutMs, prepare, probe, log } = options
  const supervised = new SupervisedProcess(spec, { log })
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
        throw notReady({ name: spec.name, reason })
      }
      await sleep(probeIntervalMs)
    }
  }

  return {
    name: spec.name,
    needs,
    readyTimeoutMs,
    stopTimeoutMs: spec.stopTimeoutMs,
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
