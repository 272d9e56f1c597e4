import { once } from 'node:events'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import { type Capability, type Component, componentNames } from '../components/component.ts'
import type { Config } from '../config/config.ts'
import { type Paths, paths as pathsOf } from '../config/paths.ts'
import { serveControl } from '../control/server.ts'
import type { Payload } from '../payload/payload.ts'
import { chooseForNode } from '../node/facts/choices.ts'
import { detectHost } from '../node/facts/host.ts'
import { pkiFiles, readIdentity } from '../pki/pki.ts'
import { finishRestore } from '../snapshot/restore.ts'
import { endLeftovers } from '../supervisor/leftovers.ts'
import { prepareCredentials } from './credentials.ts'
import { prepareDirectories } from './directories.ts'
import { addressesOf, settleNodeAddress } from './node-address.ts'
import { startComponents, stopComponents } from './lifecycle.ts'
import { type Plan, planRole } from './plan.ts'
import { stopPods } from './pods.ts'
import { clusterStatus } from './status.ts'
import type { TaskContext } from './tasks/task.ts'

/** The components of a daemon that died have lost their datastore, and cannot end in good order. */
const leftoverStopTimeoutMs = 2_000

export interface RunOptions {
  readonly payload: Payload
  /** The variables of the process. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly log: Logger
  readonly notify: Notifier
  /** Tells whoever waits at a terminal. */
  readonly announce: (line: string) => void
  /** Aborted: everything is stopped, in reverse order. */
  readonly stop: AbortSignal
  /** Aborted: what still runs is killed at once. */
  readonly hurry: AbortSignal
}

/**
 * Runs the cluster until `stop` fires, somebody asks for it at the control socket, or the datastore
 * fails. Returns when nothing runs any more but the pods; throws what ended it otherwise.
 */
export async function runCluster(config: Config, options: RunOptions): Promise<void> {
  const { payload, log } = options
  const startedAt = new Date()
  const paths = pathsOf(config)
  const pki = pkiFiles(paths.pkiDir)
  const asked = new AbortController()
  const failed = new AbortController()
  const kubeletIdentity = () => readIdentity(pki, 'kubelet-client')
  const version = payload.version.gitVersion
  let components: readonly Component[] = []
  let endPods = config.stopPods

  await prepareDirectories(paths)
  // Before anything else: a restore, or a second daemon, finds this one by its socket.
  await using _control = await serveControl({
    path: paths.controlSocket,
    log,
    handlers: {
      status: () => clusterStatus({ config, version, startedAt, components, kubeletIdentity }),
      stop({ pods }) {
        endPods ||= pods
        asked.abort()
      },
    },
  })
  if (await finishRestore(paths, payload.sqliteAddon)) log.info('finished a restore that was interrupted')
  const host = detectHost()
  const node = await settleNodeAddress({
    ...{ config, paths, log, notify: options.notify },
    signal: AbortSignal.any([options.stop, asked.signal]),
  })
  if (node === undefined) return
  const addresses = () => addressesOf(config, node.address)
  const credentials = prepareCredentials({ config, addresses, paths, log })
  // Whoever needs them waits for them; until then a failure is nobody's unhandled one.
  credentials.catch(() => {})
  const context = {
    ...{ config, addresses, paths, payload, pki, host, credentials, log },
    choices: chooseForNode(config, host),
    environment: options.environment,
  }
  const plan = planRole('single', context)
  components = plan.components
  void plan.storage.failed.then((error) => failed.abort(error))
  await endLeftovers({
    recordDir: paths.processRecordsDir,
    order: componentNames.toReversed(),
    stopTimeoutMs: leftoverStopTimeoutMs,
    log,
    signal: options.hurry,
  })
  const end = AbortSignal.any([options.stop, asked.signal, failed.signal])
  const over = new AbortController()
  const work = new BackgroundWork({ log, signal: AbortSignal.any([end, over.signal]) })
  try {
    await startCluster({ ...context, ...plan }, { ...options, end, work })
    if (!end.aborted) await once(end, 'abort')
  } catch (error) {
    // Whoever asked for the end does not want to hear that the start was not finished.
    if (!end.aborted) throw error
  } finally {
    over.abort()
    await work.settled()
    // Without its datastore kube-apiserver can do nothing but wait.
    const hurry = AbortSignal.any([options.hurry, failed.signal])
    await stopCluster({ paths, components }, { ...options, hurry, endPods })
  }
  failed.signal.throwIfAborted()
}

type StartContext = Omit<TaskContext, 'storageFlags' | 'whenReady'> & Plan

/** Returns when every component is ready; the tasks go on in the background. */
async function startCluster(
  { components, tasks, storage, ...context }: StartContext,
  { log, notify, announce, end, work }: RunOptions & { end: AbortSignal; work: BackgroundWork },
): Promise<void> {
  const report = readyReport({ announce, notify, log })
  const readiness = new Readiness(work.signal)
  const taskContext: TaskContext = {
    ...context,
    storage,
    storageFlags: storage.apiserverFlags,
    whenReady: (capability) => readiness.of(capability),
  }
  for (const { purpose, run } of tasks) work.begin(purpose, (signal) => run(taskContext, signal))
  await startComponents({
    components,
    signal: end,
    onReady(component) {
      report(component)
      for (const capability of component.provides) readiness.reached(capability)
    },
  })
  notify.ready()
  announceUse({ announce, paths: context.paths })
}

async function stopCluster(
  { paths, components }: Pick<StartContext, 'paths' | 'components'>,
  { payload, log, notify, hurry, endPods }: RunOptions & { endPods: boolean },
): Promise<void> {
  notify.stopping()
  log.info({ pods: endPods ? 'end' : 'stay' }, 'stopping')
  await stopComponents({
    components,
    hurry,
    onStop: ({ name }, tookMs) =>
      log.info({ component: name, tookMs: Math.round(tookMs) }, 'component stopped'),
    afterLosing: {
      node: async () => (endPods ? stopPods({ payload, paths, log, signal: hurry }) : undefined),
    },
  })
}

/** Which capabilities have been there, for those who wait for one. */
class Readiness {
  readonly #signal: AbortSignal
  readonly #reached = new Map<Capability, PromiseWithResolvers<void>>()

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  /** Rejects when the signal fires before. */
  of(capability: Capability): Promise<void> {
    const { promise, reject } = this.#entry(capability)
    if (this.#signal.aborted) reject(this.#signal.reason)
    this.#signal.addEventListener('abort', () => reject(this.#signal.reason), { once: true })
    return promise
  }

  reached(capability: Capability): void {
    this.#entry(capability).resolve()
  }

  #entry(capability: Capability): PromiseWithResolvers<void> {
    const entry = this.#reached.get(capability) ?? Promise.withResolvers<void>()
    this.#reached.set(capability, entry)
    return entry
  }
}

/** What runs beside the components and ends with them. A failure of it is told, and ends nothing else. */
class BackgroundWork {
  readonly signal: AbortSignal
  readonly #log: Logger
  readonly #tasks: Promise<void>[] = []

  constructor({ log, signal }: { log: Logger; signal: AbortSignal }) {
    this.#log = log
    this.signal = signal
  }

  begin(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    this.#tasks.push(
      task(this.signal).catch((error: unknown) => {
        if (!this.signal.aborted) this.#log.error({ reason: describeError(error) }, `cannot ${name}`)
      }),
    )
  }

  async settled(): Promise<void> {
    await Promise.all(this.#tasks)
  }
}

function readyReport({ announce, notify, log }: Pick<RunOptions, 'announce' | 'notify' | 'log'>) {
  const begun = performance.now()
  return ({ name }: Component) => {
    const tookMs = Math.round(performance.now() - begun)
    log.info({ component: name, tookMs }, 'component ready')
    notify.status(`${name} is ready`)
    announce(`${name.padEnd(24)} ready after ${(tookMs / 1000).toFixed(2)} s`)
  }
}

function announceUse({ announce, paths }: { announce: RunOptions['announce']; paths: Paths }): void {
  announce('')
  announce('The cluster is ready. To use it from another terminal:')
  announce(`    export KUBECONFIG=${paths.adminKubeconfig}`)
  announce('    k8s kubectl get nodes')
}
