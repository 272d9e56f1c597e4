import { once } from 'node:events'
import { applyManifests } from '../addons/apply.ts'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import { type Component, componentNames } from '../components/component.ts'
import type { Config } from '../config/config.ts'
import { type Paths, paths as pathsOf } from '../config/paths.ts'
import { serveControl } from '../control/server.ts'
import type { Payload } from '../payload/payload.ts'
import { type PkiFiles, pkiFiles, readIdentity } from '../pki/pki.ts'
import { finishRestore } from '../snapshot/restore.ts'
import { endLeftovers } from '../supervisor/leftovers.ts'
import { addonManifests } from './addons.ts'
import { prepareCredentials, renewDaily } from './credentials.ts'
import { prepareDirectories } from './directories.ts'
import { ImageImport } from './images.ts'
import { planNodeFiles } from './node-files.ts'
import { startComponents, stopComponents } from './order.ts'
import { planCluster, serverUrl } from './plan.ts'
import { stopPods } from './pods.ts'
import { takeSnapshots } from './snapshots.ts'
import { clusterStatus } from './status.ts'

/** The components of a daemon that died have lost their datastore, and cannot end in good order. */
const leftoverStopTimeoutMs = 2_000

export interface RunOptions {
  readonly payload: Payload
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
  const nodeFiles = planNodeFiles({ config, paths, payload, pki })
  const credentials = prepareCredentials({ config, paths, log })
  // Whoever needs them waits for them; until then a failure is nobody's unhandled one.
  credentials.catch(() => {})
  components = planCluster({
    ...{ config, paths, payload, pki, nodeFiles, credentials, kubeletIdentity, log },
    onDatastoreFailure: (error) => failed.abort(error),
  })
  await endLeftovers({
    recordDir: paths.processRecordsDir,
    order: componentNames.toReversed(),
    stopTimeoutMs: leftoverStopTimeoutMs,
    log,
    signal: options.hurry,
  })
  const cluster = { config, paths, pki, components, hasNameServer: nodeFiles.hasNameServer }
  const end = AbortSignal.any([options.stop, asked.signal, failed.signal])
  const work = new BackgroundWork({ log, signal: end })
  try {
    await startCluster(cluster, { ...options, end, work })
    if (!end.aborted) await once(end, 'abort')
  } catch (error) {
    // Whoever asked for the end does not want to hear that the start was not finished.
    if (!end.aborted) throw error
  } finally {
    await work.settled()
    // Without its datastore kube-apiserver can do nothing but wait.
    const hurry = AbortSignal.any([options.hurry, failed.signal])
    await stopCluster(cluster, { ...options, hurry, endPods })
  }
  failed.signal.throwIfAborted()
}

interface Cluster {
  readonly config: Config
  readonly paths: Paths
  readonly pki: PkiFiles
  readonly components: readonly Component[]
  readonly hasNameServer: boolean
}

/** Returns when every component is ready; images and add-ons follow in the background. */
async function startCluster(
  { config, paths, pki, components, hasNameServer }: Cluster,
  { payload, log, notify, announce, end, work }: RunOptions & { end: AbortSignal; work: BackgroundWork },
): Promise<void> {
  const report = readyReport({ announce, notify, log })
  const images = new ImageImport({ payload, paths, log })
  await startComponents({
    components,
    signal: end,
    onReady(component) {
      report(component)
      if (component.name !== 'containerd') return
      work.begin('import images', (signal) => images.early(signal))
    },
  })
  notify.ready()
  announceUse({ announce, paths })
  const manifests = addonManifests({ config, payload, hasNameServer })
  work.begin('apply the add-ons', async (signal) => {
    await images.late(signal)
    await applyManifests({
      server: serverUrl(config),
      tls: await readIdentity(pki, 'admin-client'),
      manifests,
      log,
      signal,
    })
  })
  work.begin('take snapshots', (signal) => takeSnapshots({ config, payload, log, signal }))
  work.begin('renew certificates', (signal) => renewDaily({ config, paths, log, signal }))
}

async function stopCluster(
  { paths, components }: Cluster,
  { payload, log, notify, hurry, endPods }: RunOptions & { endPods: boolean },
): Promise<void> {
  notify.stopping()
  log.info({ pods: endPods ? 'end' : 'stay' }, 'stopping')
  await stopComponents({
    components,
    hurry,
    onStop: ({ name }, tookMs) =>
      log.info({ component: name, tookMs: Math.round(tookMs) }, 'component stopped'),
    after: { kubelet: async () => (endPods ? stopPods({ payload, paths, log, signal: hurry }) : undefined) },
  })
}

/** What runs beside the components and ends with them. A failure of it is told, and ends nothing else. */
class BackgroundWork {
  readonly #log: Logger
  readonly #signal: AbortSignal
  readonly #tasks: Promise<void>[] = []

  constructor({ log, signal }: { log: Logger; signal: AbortSignal }) {
    this.#log = log
    this.#signal = signal
  }

  begin(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    this.#tasks.push(
      task(this.#signal).catch((error: unknown) => {
        if (!this.#signal.aborted) this.#log.error({ reason: describeError(error) }, `cannot ${name}`)
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
