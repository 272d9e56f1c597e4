import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { type Datastore, startDatastore } from '../datastore/datastore.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import type { Component } from './component.ts'

export interface StorageOptions {
  readonly database: string
  readonly socket: string
  readonly workerUrl: URL
  /** The compiled part of better-sqlite3. */
  readonly nativeBinding: string
  /** For clients that take a snapshot as of etcd. */
  readonly etcdFileProgram: string
  readonly log: Logger
  /** The datastore is part of this process: when its worker dies there is nothing to restart it in. */
  readonly onFailure: (error: Error) => void
}

/**
 * kube-apiserver's caches of what rarely changes learn from a notification how far they are. They must hear of it more often than the
 * API server compacts (every five minutes), or a watch that begins again finds its revision gone. A watch that waits for
 * the latest revision asks for itself.
 */
const progressNotifyIntervalMs = 60_000

/** The embedded datastore: a worker thread of the daemon, which serves etcd's API at a Unix socket. */
export function storage(options: StorageOptions): Component {
  const { database, socket, workerUrl, nativeBinding, etcdFileProgram, onFailure } = options
  const log = options.log.child({ component: 'datastore' })
  let running: Datastore | undefined
  let starting: Promise<Datastore> | undefined
  let state: ProcessStatus['state'] = 'idle'
  let since = new Date()
  const enter = (phase: ProcessStatus['state']) => {
    state = phase
    since = new Date()
  }

  return {
    name: 'datastore',
    needs: [],
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 15_000,
    init: async () => {},
    async start() {
      enter('starting')
      starting = startDatastore({
        path: database,
        listen: { unixPath: socket },
        progressNotifyIntervalMs,
        workerUrl,
        nativeBinding,
        etcdFileProgram,
        log,
      })
      running = await starting
      enter('running')
      void running.failed.then((cause) => {
        if (state === 'stopping' || state === 'stopped') return
        enter('stopped')
        onFailure(new AppError('cannot go on without the datastore', { code: 'DATASTORE_FAILED' }, { cause }))
      })
    },
    // It answers as soon as it runs: its start ends with a write and a read.
    ready: async () => enter('ready'),
    async stop() {
      if (state === 'idle' || state === 'stopped') return
      enter('stopping')
      await starting?.then(
        (datastore) => datastore.stop(),
        () => {},
      )
      enter('stopped')
    },
    status: () => ({
      name: 'datastore',
      state,
      restarts: 0,
      since: since.toISOString(),
      ...(running && { pid: process.pid }),
    }),
  }
}
