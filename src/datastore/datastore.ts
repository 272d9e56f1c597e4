import { Worker } from 'node:worker_threads'

import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import {
  type DatastoreAlarm,
  type Listening,
  type ServerReply,
  type ServerRequest,
  type WorkerData,
  fromPlainError,
} from './messages.ts'
import { defaultHeapBytes, mebibyte } from './memory.ts'
import type { DatastoreSettings } from './settings.ts'

export type { TlsFiles } from './grpc/certificates.ts'
export type { EtcdServer } from './grpc/client.ts'
export type { ListenAddress } from './grpc/server.ts'
export { DatastoreLock } from './log/lock.ts'
export { type DatastoreSettings, defaultSettings } from './settings.ts'

interface DatastoreOptions extends DatastoreSettings {
  /** The datastore's worker: src/datastore/worker.ts, or what it was bundled to. */
  readonly workerUrl: URL
  readonly log: Logger
}

/** A datastore that serves. */
export interface Datastore {
  /** As clients dial it: unix:///path or http(s)://host:port. */
  readonly listening: string
  /** Where /metrics and /health are. */
  readonly metricsUrl: string | undefined
  /** Settles, with the reason, when the datastore ends without having been stopped. */
  readonly failed: Promise<AppError>
  /** Resolves when the event loop of the thread that serves has come round; never for one that hangs. */
  ping(): Promise<void>
  /** What is the matter with it, in a sentence with its remedy, while it goes on; undefined when all is well. */
  trouble(): string | undefined
  /**
   * Ends all calls, brings what was written to the disk and lets the database go. May be repeated. When the signal
   * fires, its thread is ended at once; one that waits for a disk goes on waiting.
   */
  stop(signal?: AbortSignal): Promise<void>
}

/** Of the alarm NOSPACE, by its cause. */
const alarmWords: Readonly<Record<DatastoreAlarm['cause'], string>> = {
  disk: 'no writes: its disk is full. Free space; writes go on by themselves then',
  quota:
    'no writes: the database has reached its quota. Delete objects, compact ("k8s db compact"), then "k8s db disarm"',
  request: 'no writes: a client has raised the alarm NOSPACE. "k8s db disarm" lowers it',
}

/** How long a thread that is ended at once may take: one that hangs in a system call does not end at all. */
const terminationLimitMs = 4_000

/** Of the heap of the thread that serves. With 8 MB, more buffers are garbage at a time: up to 50 MB under load. */
const nurseryMebibytes = 4

/**
 * Starts a datastore in threads of its own. Rejects with an AppError: DATASTORE_LOCKED when another
 * process has the database, DATASTORE_DAMAGED, DATASTORE_NEWER, DATASTORE_FOREIGN, DATASTORE_OPEN or
 * DATASTORE_LISTEN or SOCKET_TAKEN.
 */
export async function startDatastore({ workerUrl, log, ...given }: DatastoreOptions): Promise<Datastore> {
  const worker = startThread(workerUrl, { ...given, heapBytes: given.heapBytes ?? defaultHeapBytes() })
  const serving = Promise.withResolvers<Listening>()
  const ended = Promise.withResolvers<void>()
  const failed = Promise.withResolvers<AppError>()
  const pings: (() => void)[] = []

  const fail = (error: AppError): void => {
    terminate()
    whenGone(ended.promise, () => {
      serving.reject(error)
      failed.resolve(error)
    })
  }
  let hasEnded = false
  const terminate = (): void => {
    if (hasEnded) return
    void worker.terminate()
    process.off('exit', killProcess)
    process.on('exit', killProcess)
  }
  let alarm: DatastoreAlarm | undefined
  worker.on('message', (reply: ServerReply) => {
    if (reply.kind === 'alarm') alarm = reply.alarm
    else if (reply.kind === 'serving') serving.resolve(reply)
    else if (reply.kind === 'failed') fail(fromPlainError(reply.error))
    else if (reply.kind === 'pong') pings.shift()?.()
    else log[reply.level](reply.fields, reply.message)
  })
  worker.on('error', (error) => {
    fail(new AppError('cannot go on with the datastore', { code: 'DATASTORE_BUG' }, { cause: error }))
  })
  let isStopping = false
  worker.on('exit', (exitCode) => {
    hasEnded = true
    if (!isStopping)
      fail(new AppError('cannot go on: the datastore’s thread ended', { code: 'DATASTORE_BUG', exitCode }))
    process.off('exit', killProcess)
    ended.resolve()
  })

  const { address, metricsUrl } = await serving.promise
  return {
    listening: address,
    metricsUrl,
    failed: failed.promise,
    ping: () =>
      new Promise((resolve) => {
        pings.push(resolve)
        worker.postMessage({ kind: 'ping' } satisfies ServerRequest)
      }),
    trouble: () => alarm && alarmWords[alarm.cause],
    stop: async (signal) => {
      const stuck = Promise.withResolvers<never>()
      const hurry = () => {
        terminate()
        setTimeout(() => stuck.reject(cannotStop()), terminationLimitMs).unref()
      }
      if (!isStopping) worker.postMessage({ kind: 'stop' } satisfies ServerRequest)
      isStopping = true
      if (signal?.aborted) hurry()
      signal?.addEventListener('abort', hurry, { once: true })
      await Promise.race([ended.promise, stuck.promise]).finally(() =>
        signal?.removeEventListener('abort', hurry),
      )
    },
  }
}

function startThread(workerUrl: URL, settings: DatastoreSettings & { heapBytes: number }): Worker {
  const workerData: WorkerData = { role: 'server', settings, workerUrl: workerUrl.href }
  const resourceLimits = {
    maxYoungGenerationSizeMb: nurseryMebibytes,
    maxOldGenerationSizeMb: Math.ceil(settings.heapBytes / mebibyte),
  }
  return new Worker(workerUrl, { workerData, resourceLimits, name: 'datastore' })
}

/** Whoever hears of a failure ends the process, which waits for the thread: it is told when that is gone, or never goes. */
function whenGone(ended: Promise<void>, tell: () => void): void {
  const limit = setTimeout(tell, terminationLimitMs)
  void ended.then(() => {
    clearTimeout(limit)
    tell()
  })
}

/** The end of a process waits for its threads: for one that does not end, for ever. */
function killProcess(): void {
  process.kill(process.pid, 'SIGKILL')
}

function cannotStop(): AppError {
  return new AppError('cannot stop the datastore: its thread hangs in a system call', {
    code: 'DATASTORE_STUCK',
    remedy: 'look at the disk that has the database; reboot when it does not answer any more',
  })
}
