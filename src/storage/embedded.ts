import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../base/errors.ts'
import type { Component } from '../components/component.ts'
import { type Datastore, DatastoreLock, startDatastore } from '../datastore/datastore.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import { saveSnapshot } from './save-snapshot.ts'
import type { Storage, StorageOptions } from './storage.ts'

/**
 * kube-apiserver's caches of what rarely changes learn from a notification how far they are. They must hear of it more often than the
 * API server compacts (every five minutes), or a watch that begins again finds its revision gone. A watch that waits for
 * the latest revision asks for itself.
 */
const progressNotifyIntervalMs = 60_000

/** How often its thread is asked whether it goes round, and how long that may take until it is shown. */
const pingIntervalMs = 10_000
const defaultSilenceLimitMs = 10_000

export interface EmbeddedStorageOptions extends Omit<StorageOptions, 'addresses' | 'pki' | 'credentials'> {
  /** This program, for the process that saves a snapshot. */
  readonly main?: string
  readonly silenceLimitMs?: number
}

/** SQLite in the daemon: a worker thread of it serves etcd's API at a Unix socket. */
export function embeddedStorage(options: EmbeddedStorageOptions): Storage {
  const lost = Promise.withResolvers<AppError>()
  const { component, ping } = datastore({ ...options, onFailure: lost.resolve })
  return {
    components: [component],
    apiserverFlags: { 'etcd-servers': `unix://${options.paths.datastoreSocket}` },
    mayBeAway: false,
    failed: lost.promise,
    ping,
    snapshots: {
      // Opening it would drop its locks.
      createdAt: async () => (await stat(options.paths.database)).birthtime,
      save: (name, signal) => saveSnapshot(options, name, signal),
    },
  }
}

/**
 * Keeps everybody else from the database, until disposed of, while it is removed. Throws DATASTORE_LOCKED when somebody has it: a
 * datastore alone may run in the data directory, which has no control socket. undefined: there is none.
 */
export function holdDatabase(path: string, nativeBinding: string | undefined): Disposable | undefined {
  return existsSync(`${path}.lock`) ? new DatastoreLock({ path, nativeBinding }) : undefined
}

function datastore({
  config,
  paths,
  payload,
  onFailure,
  silenceLimitMs = defaultSilenceLimitMs,
  ...options
}: EmbeddedStorageOptions & {
  /** The datastore is part of this process: when its worker dies there is nothing to restart it in. */
  onFailure: (error: AppError) => void
}): { component: Component; ping: Storage['ping'] } {
  const log = options.log.child({ component: 'datastore' })
  let running: Datastore | undefined
  let starting: Promise<Datastore> | undefined
  let state: ProcessStatus['state'] = 'idle'
  let since = new Date()
  const enter = (phase: ProcessStatus['state']) => {
    state = phase
    since = new Date()
  }

  const isServing = () => state === 'running' || state === 'ready' || state === 'unresponsive'

  const component: Component = {
    name: 'datastore',
    needs: [],
    provides: ['storage'],
    policy: 'fatal',
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 15_000,
    init: async () => {},
    async start() {
      enter('starting')
      starting = startThread({ config, paths, payload, log })
      running = await starting
      // Otherwise it was stopped meanwhile.
      if (state === 'starting') enter('running')
      void watchThread(running, {
        silenceLimitMs,
        isServing,
        onSilent() {
          log.error({ waitedMs: silenceLimitMs }, silence)
          if (state === 'ready') enter('unresponsive')
        },
        onAnswer: () => state === 'unresponsive' && enter('ready'),
      })
      void running.failed.then((cause) => {
        if (state === 'stopping' || state === 'stopped') return
        enter('stopped')
        onFailure(new AppError('cannot go on without the datastore', { code: 'DATASTORE_FAILED' }, { cause }))
      })
    },
    // It answers as soon as it runs: its start ends with a write and a read.
    ready: async () => enter('ready'),
    async stop(signal) {
      if (state === 'idle' || state === 'stopped') return
      enter('stopping')
      await starting?.then(
        (datastore) => datastore.stop(signal),
        () => {},
      )
      enter('stopped')
    },
    status: () => ({
      name: 'datastore',
      ...(state === 'unresponsive' ? { reason: silence } : troubleOf(running)),
      state,
      restarts: 0,
      since: since.toISOString(),
      ...(running && { pid: process.pid }),
    }),
  }
  // Before it serves it may read for long, and after its end nobody answers.
  const ping = async () => (isServing() ? running?.ping() : undefined)
  return { component, ping }
}

function startThread({
  config,
  paths,
  payload,
  log,
}: Pick<EmbeddedStorageOptions, 'config' | 'paths' | 'payload' | 'log'>): Promise<Datastore> {
  return startDatastore({
    path: paths.database,
    listen: { unixPath: paths.datastoreSocket },
    progressNotifyIntervalMs,
    quotaBytes: config.quotaBackendBytes,
    workerUrl: payload.datastoreWorker,
    nativeBinding: payload.sqliteAddon,
    // For clients that take a snapshot as of etcd.
    etcdFileProgram: payload.bin('etcd-file'),
    log,
  })
}

const silence = 'its thread does not answer'

/** Shows a thread that hangs. There is nothing to start it again in: a service manager's watchdog ends the daemon. */
async function watchThread(
  datastore: Datastore,
  {
    silenceLimitMs,
    isServing,
    onSilent,
    onAnswer,
  }: { silenceLimitMs: number; isServing: () => boolean; onSilent: () => void; onAnswer: () => void },
): Promise<void> {
  while (isServing()) {
    const answer = datastore.ping()
    const limit = sleep(silenceLimitMs, true, { ref: false })
    if (await Promise.race([answer, limit])) onSilent()
    await answer
    onAnswer()
    await sleep(pingIntervalMs, undefined, { ref: false })
  }
}

function troubleOf(datastore: Datastore | undefined): { reason?: string } {
  const reason = datastore?.trouble()
  return reason === undefined ? {} : { reason }
}
