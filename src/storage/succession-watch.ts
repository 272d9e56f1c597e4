import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../base/errors.ts'
import type { Paths } from '../config/paths.ts'
import { type Successor, successorOf } from './succession.ts'

/** Between two looks while this server's member serves, and while it does not. */
const defaultTiming = { calmIntervalMs: 30_000, intervalMs: 10_000 }

interface SuccessionWatchOptions {
  readonly paths: Pick<Paths, 'memberDir' | 'pkiDir'>
  /** Where the members of the other servers serve. */
  readonly others: () => readonly string[]
  readonly prefix: string
  readonly timing?: typeof defaultTiming
}

/** Looks whether the cluster was reset on another server while this one runs. */
export class SuccessionWatch {
  readonly #options: SuccessionWatchOptions
  readonly #lost = Promise.withResolvers<AppError>()
  #contested: Successor | undefined

  constructor(options: SuccessionWatchOptions) {
    this.#options = options
  }

  /** Settles when what this server has is of the past: its daemon has to end, and to start again. */
  get lost(): Promise<AppError> {
    return this.#lost.promise
  }

  /** In a sentence: a majority serves here all the same. */
  get trouble(): string | undefined {
    if (this.#contested === undefined) return undefined
    const { endpoint } = this.#contested
    return `the cluster was reset on another server (${endpoint}), while a majority of its members serves here: there are two. Stop that one, take its data away with "k8s reset", and join it again; or, where it shall be the cluster, stop all others, and start them again`
  }

  /** Until the signal fires. An election is no reason to end: it has to be found twice in a row. */
  async follow(serves: () => boolean, signal: AbortSignal): Promise<void> {
    const { paths, others, prefix, timing = defaultTiming } = this.#options
    for (let times = 0; times < 2; ) {
      const pauseMs = serves() ? timing.calmIntervalMs : timing.intervalMs
      await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      const asked = { endpoints: others(), prefix, signal }
      const found = await successorOf(paths, asked).catch(() => undefined)
      const isContested = found !== undefined && (found.isContested || serves())
      this.#contested = isContested ? found : undefined
      times = found === undefined || isContested ? 0 : times + 1
      if (times === 2 && found !== undefined && !signal.aborted) this.#lost.resolve(wasReset(found))
    }
  }
}

/** The next start puts its data aside before anything of them runs (cluster/server-was-reset.ts). */
function wasReset({ endpoint }: Successor): AppError {
  return new AppError(
    'cannot go on: the cluster was reset on another server, and what this one has in its etcd is of the past',
    {
      code: 'CLUSTER_WAS_RESET',
      endpoint,
      remedy: 'start again: its data are put aside then, and it joins that cluster',
    },
  )
}
