import { once } from 'node:events'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { DatastoreConfig } from '../config/config.ts'
import { keepFacts } from '../config/facts.ts'
import { type Paths, paths as pathsOf } from '../config/paths.ts'
import type { DaemonStatus } from '../control/messages.ts'
import { type ControlHandlers, serveControl } from '../control/server.ts'
import { type Datastore, type DatastoreSettings, startDatastore } from '../datastore/datastore.ts'
import type { Payload } from '../payload/payload.ts'
import { UsageSampler } from '../supervisor/usage.ts'
import { type DaemonOptions, extendStart, prepareProcess, takeDataDir } from './daemon.ts'
import { StopRequests } from './stop-requests.ts'
import { installedPayloads } from './tasks/payloads.ts'
import { feedWatchdog } from './watchdog.ts'

/** How long the calls that are under way, and the disk, may take at the end. */
const stopTimeoutMs = 15_000

export interface DatastoreRunOptions extends DaemonOptions {
  /** What the datastore is run with, but for its place and what the payload has. */
  readonly settings: Omit<DatastoreSettings, 'path' | 'nativeBinding' | 'etcdFileProgram'>
}

/**
 * The role datastore: serves until `stop` fires, somebody asks for the end at the control socket, or the datastore fails,
 * which is thrown.
 */
export async function runDatastore(config: DatastoreConfig, options: DatastoreRunOptions): Promise<void> {
  const { settings, payload, log, notify, announce } = options
  const paths = pathsOf(config)
  const requests = new StopRequests({ signalled: options.stop, hurried: options.hurry, endPods: false })
  prepareProcess()
  using part = new DatastorePart(payload, paths)
  await using _control = await serveControlIfAllowed({
    path: paths.controlSocket,
    log,
    handlers: {
      status: () => part.status(),
      stop({ pods }) {
        if (pods) throw withoutPods()
        requests.ask({ pods })
      },
    },
  })
  await takeDataDir(paths, options)
  const start = startDatastore({
    ...settings,
    path: paths.database,
    nativeBinding: payload.sqliteAddon,
    etcdFileProgram: payload.bin('etcd-file'),
    workerUrl: payload.datastoreWorker,
    log,
  })
  // A large database is read for minutes.
  const datastore = await extendStart(notify, start)
  part.serving(datastore)
  keepRole(config, log)
  notify.ready()
  notify.status(`serving on ${datastore.listening}`)
  announce(`serving on ${datastore.listening}`)
  if (datastore.metricsUrl !== undefined) announce(`serving metrics on ${datastore.metricsUrl}/metrics`)
  using _watchdog = feedWatchdog({ notify, storage: datastore, log })
  const { asked, hurried } = requests
  const ended = asked.aborted ? Promise.resolve() : once(asked, 'abort')
  const failure = await Promise.race([ended.then(() => undefined), datastore.failed])
  if (failure !== undefined) throw failure
  part.isStopping = true
  notify.stopping()
  await datastore.stop(AbortSignal.any([hurried, AbortSignal.timeout(stopTimeoutMs)]))
}

/** A user who is not root may serve a database of its own, and not where a long path of it has its socket. */
async function serveControlIfAllowed(given: {
  path: string
  log: Logger
  handlers: ControlHandlers
}): Promise<AsyncDisposable> {
  try {
    return await serveControl(given)
  } catch (error) {
    if (errorCode(error) !== 'EACCES') throw error
    const { path, log } = given
    log.warn({ path, reason: describeError(error) }, 'cannot be asked by k8s status and k8s stop')
    return { [Symbol.asyncDispose]: async () => {} }
  }
}

/** What `k8s status` shows of it. */
class DatastorePart {
  readonly #payload: Payload
  readonly #paths: Paths
  readonly #startedAt = new Date()
  #since = this.#startedAt
  readonly #usage = new UsageSampler({ pids: () => [process.pid] })
  #datastore: Datastore | undefined
  isStopping = false

  constructor(payload: Payload, paths: Paths) {
    this.#payload = payload
    this.#paths = paths
  }

  [Symbol.dispose](): void {
    this.#usage[Symbol.dispose]()
  }

  serving(datastore: Datastore): void {
    this.#datastore = datastore
    this.#since = new Date()
  }

  async status(): Promise<DaemonStatus> {
    const reason = this.#datastore?.trouble()
    const state = this.#datastore === undefined ? 'starting' : 'ready'
    const whole = state === 'ready' && reason !== undefined ? 'degraded' : state
    return {
      role: 'datastore',
      version: this.#payload.version.gitVersion,
      startedAt: this.#startedAt.toISOString(),
      state: this.isStopping ? 'stopping' : whole,
      problems: reason === undefined ? [] : [`datastore: ${reason}`],
      parts: [],
      payloads: await installedPayloads(this.#payload, this.#paths),
      components: [
        {
          name: 'datastore',
          ...(reason !== undefined && { reason }),
          state,
          pid: process.pid,
          restarts: 0,
          since: this.#since.toISOString(),
          ...this.#usage.usage(process.pid),
        },
      ],
    }
  }
}

function withoutPods(): AppError {
  return new AppError('cannot end pods: a datastore has none', {
    code: 'NO_PODS',
    remedy: 'stop it without --pods',
  })
}

/** A full disk is no reason not to serve what is on it. */
function keepRole(config: DatastoreConfig, log: Logger): void {
  try {
    keepFacts(config)
  } catch (error) {
    log.warn({ reason: describeError(error) }, 'cannot keep what this data directory is for')
  }
}
