import { statSync } from 'node:fs'
import { dirname } from 'node:path'
import { Worker } from 'node:worker_threads'

import { AppError, describeError } from '../base/errors.ts'
import { createPrivateFileSync, makePrivateDirectorySync } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import { RareLog } from '../base/rare-log.ts'
import { chooseClientUrls, readMachine } from './advertise.ts'
import type { Method } from './grpc/http2/call.ts'
import { ResponseHeader } from './grpc/messages/header.ts'
import { GrpcServer } from './grpc/server.ts'
import type { ServiceContext } from './grpc/service.ts'
import { authService } from './grpc/services/auth.ts'
import { clusterService } from './grpc/services/cluster.ts'
import { electionService } from './grpc/services/election.ts'
import { hashMethods } from './grpc/services/hash.ts'
import { healthService } from './grpc/services/health.ts'
import { kvService } from './grpc/services/kv.ts'
import { leaseService } from './grpc/services/lease.ts'
import { lockService } from './grpc/services/lock.ts'
import { maintenanceService } from './grpc/services/maintenance.ts'
import { snapshotService } from './grpc/services/snapshot.ts'
import { watchService } from './grpc/services/watch.ts'
import { codeNames } from './grpc/status.ts'
import { DatastoreLock } from './log/lock.ts'
import { Log } from './log/log.ts'
import { defaultHeapBytes, storeLimits } from './memory.ts'
import type { DatastoreAlarm, Listening, WorkerData } from './messages.ts'
import { MetricsServer } from './metrics/metrics-server.ts'
import { Engine } from './mvcc/engine.ts'
import { Retention } from './mvcc/retention.ts'
import type { AlarmCause } from './mvcc/space-alarm.ts'
import { type DatastoreSettings, defaultSettings } from './settings.ts'
import { snapshotFiles } from './snapshot-files.ts'

/** SQLite's page caches, of the thread that reads and of the one that writes. */
const readCacheBytes = 4 * 1024 * 1024
const writeCacheBytes = 4 * 1024 * 1024
/** The writer's heap holds a few batches at most; without a limit V8 lets garbage grow. */
const writerLimits = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 }
/** etcd: config.ServerConfig, MaxRequestBytesWithOverhead. */
const grpcOverheadBytes = 512 * 1024

interface ServerOptions {
  readonly settings: DatastoreSettings
  /** The module that starts the writer's thread: the datastore's worker itself. */
  readonly workerUrl: URL
  readonly log: Logger
  readonly onFailure: (error: AppError) => void
  /** Called for an alarm that is found at the start, too. */
  readonly onAlarm: (alarm: DatastoreAlarm | undefined) => void
}

/** The whole datastore, as it runs in its thread: log, engine and gRPC server. */
export class DatastoreServer {
  readonly #lock: DatastoreLock
  readonly #log: Log
  readonly #engine: Engine
  readonly #server: GrpcServer
  readonly #metrics: MetricsServer | undefined
  readonly #retention: Retention | undefined
  readonly #settings: DatastoreSettings
  /** As clients dial it, and where they are told to go; known once the server listens. */
  #address = ''
  #clientUrls: readonly string[] = []

  constructor({ settings, workerUrl, log, onFailure, onAlarm }: ServerOptions) {
    const { path, nativeBinding } = settings
    prepareFile(path)
    this.#settings = settings
    this.#lock = new DatastoreLock({ path, nativeBinding })
    const writer = startWriter(workerUrl, { path, nativeBinding, cacheBytes: writeCacheBytes })
    this.#log = new Log({ path, nativeBinding, cacheBytes: readCacheBytes }, writer)
    const quotaBytes = settings.quotaBytes ?? defaultSettings.quotaBytes
    this.#engine = new Engine({
      log: this.#log,
      limits: storeLimits(settings.heapBytes ?? defaultHeapBytes()),
      quotaBytes,
      onFailure,
      onTrouble: troubleLog(log),
      onAlarm: (cause) => {
        if (cause === undefined) log.info({}, 'the datastore takes writes again')
        onAlarm(alarmOf(cause))
      },
    })
    if (this.#engine.alarm !== undefined) onAlarm(alarmOf(this.#engine.alarm))
    const maxRequestBytes = settings.maxRequestBytes ?? defaultSettings.maxRequestBytes
    const retentionMs = settings.retentionMs ?? defaultSettings.retentionMs
    if (retentionMs > 0) this.#retention = this.#startRetention(retentionMs)
    const header = new ResponseHeader(this.#identity())
    const methods = this.#methods({ header, maxRequestBytes, workerUrl })
    if (settings.metricsListen !== undefined) this.#metrics = this.#countCalls(methods, header.memberId, log)
    this.#server = new GrpcServer({
      methods,
      maxMessageBytes: maxRequestBytes + grpcOverheadBytes,
      log,
    })
  }

  #startRetention(periodMs: number): Retention {
    const retention = new Retention({
      engine: this.#engine,
      periodMs,
      file: {
        read: () => this.#log.readMeta('retention_notes'),
        write: (text) => this.#log.appendMeta('retention_notes', text),
      },
    })
    this.#engine.onPublished(() => retention.published())
    return retention
  }

  /** Serves, once a write has reached the disk; returns the addresses as clients dial them. */
  async start(): Promise<Listening> {
    this.#log.appendMeta('started_ms', String(Date.now()))
    const { listen, metricsListen } = this.#settings
    const [address, metricsUrl] = await Promise.all([
      this.#server.listen(listen),
      metricsListen && this.#metrics?.listen(metricsListen),
      new Promise((resolve) => this.#log.afterCommit(resolve)),
    ])
    this.#address = address
    this.#clientUrls = this.#chooseClientUrls()
    this.#retention?.start()
    return { address, metricsUrl }
  }

  /** Ends the calls, then brings to the disk what was written. */
  async stop(): Promise<void> {
    this.#metrics?.stop()
    this.#retention?.stop()
    await this.#server.stop()
    this.#engine.stop()
    await this.#log.close()
    this.#lock[Symbol.dispose]()
  }

  /** Addresses and certificates change; what was good for the last client is for the next when nothing better is left. */
  #currentClientUrls(): readonly string[] {
    try {
      this.#clientUrls = this.#chooseClientUrls()
    } catch {
      // They stay as they were.
    }
    return this.#clientUrls
  }

  #chooseClientUrls(): readonly string[] {
    const { listen, advertiseClientUrls } = this.#settings
    if (advertiseClientUrls !== undefined) return advertiseClientUrls
    const { bound, certificates } = this.#server
    if ('unixPath' in listen || bound === undefined) return [this.#address]
    return chooseClientUrls({ ...bound, host: listen.host, certificate: certificates }, readMachine())
  }

  #countCalls(methods: Map<string, Method>, memberId: bigint, log: Logger): MetricsServer {
    for (const [path, method] of methods) {
      methods.set(path, { ...method, handled: new Float64Array(codeNames.length) })
    }
    const { path } = this.#settings
    const source = {
      engine: this.#engine,
      commits: this.#log.commits,
      methods,
      memberId,
      walBytes: () => statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0,
    }
    return new MetricsServer({ source, log })
  }

  #methods({
    header,
    maxRequestBytes,
    workerUrl,
  }: {
    header: ResponseHeader
    maxRequestBytes: number
    workerUrl: URL
  }): Map<string, Method> {
    const settings = this.#settings
    const context: ServiceContext = {
      engine: this.#engine,
      header,
      options: {
        maxRequestBytes,
        maxTxnOperations: settings.maxTxnOperations ?? defaultSettings.maxTxnOperations,
        progressNotifyIntervalMs:
          settings.progressNotifyIntervalMs ?? defaultSettings.progressNotifyIntervalMs,
        clientUrls: () => this.#currentClientUrls(),
      },
    }
    return new Map([
      ...kvService(context),
      ...watchService(context),
      ...leaseService(context),
      ...maintenanceService(context),
      ...hashMethods(context),
      ...snapshotService(
        snapshotFiles({
          ...{ path: settings.path, nativeBinding: settings.nativeBinding, workerUrl },
          program: settings.etcdFileProgram,
          space: () => this.#log.space,
        }),
      ),
      ...clusterService(context),
      ...authService(context),
      ...lockService(context),
      ...electionService(context),
      ...healthService(),
    ])
  }

  /** The ids of cluster and member are chosen once. */
  #identity(): { clusterId: bigint; memberId: bigint } {
    const idOf = (name: 'cluster_id' | 'member_id'): bigint => {
      const known = this.#log.readMeta(name)
      if (known !== undefined) return BigInt(known)
      const [chosen = 1n] = crypto.getRandomValues(new BigUint64Array(1))
      this.#log.appendMeta(name, String(chosen))
      return chosen
    }
    return { clusterId: idOf('cluster_id'), memberId: idOf('member_id') }
  }
}

function alarmOf(cause: AlarmCause | undefined): DatastoreAlarm | undefined {
  return cause && { name: 'NOSPACE', cause }
}

/** However many requests run into it. */
function troubleLog(log: Logger): (error: AppError) => void {
  const rareLog = new RareLog(log)
  return (error) => {
    const { code, remedy, fields } = error
    rareLog.error({ ...fields, code, remedy }, describeError(error), code)
  }
}

/** The file is for its owner alone from its beginning; SQLite gives -wal and -shm the same mode. */
function prepareFile(path: string): void {
  try {
    makePrivateDirectorySync(dirname(path))
    createPrivateFileSync(path)
  } catch (thrown) {
    throw new AppError(
      'cannot open datastore',
      { code: 'DATASTORE_OPEN', path, remedy: 'Check that the directory can be made and written.' },
      { cause: thrown },
    )
  }
}

function startWriter(
  workerUrl: URL,
  database: { path: string; nativeBinding?: string | undefined; cacheBytes: number },
): Worker {
  const workerData: WorkerData = { role: 'log-writer', database }
  return new Worker(workerUrl, { workerData, resourceLimits: writerLimits, name: 'datastore-log' })
}
