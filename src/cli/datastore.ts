import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { DatastoreConfig } from '../config/config.ts'
import { keepFacts } from '../config/facts.ts'
import { loadAnyConfig } from '../config/load.ts'
import { paths as pathsOf } from '../config/paths.ts'
import { settingsOf } from '../config/schema.ts'
import type { DatastoreSettings, TlsFiles } from '../datastore/datastore.ts'
import { type Command, configOption, type Invocation, requirePayload, sourcesOf } from './command.ts'
import { loggerOptions } from './logger-options.ts'

export const datastore: Command = {
  name: 'datastore',
  description: "Serve the datastore alone: etcd's API, on SQLite.",
  details: 'Serves until SIGTERM or SIGINT. One process at a time can have a data directory.',
  examples: [
    {
      command: 'k8s datastore --data-dir=/srv/datastore --listen-address=127.0.0.1:2379',
      description: 'Serve without encryption on loopback',
    },
    {
      command:
        'k8s datastore --listen-address=0.0.0.0:2379 --cert-file=server.crt --key-file=server.key --trusted-ca-file=ca.crt',
      description: 'Serve clients that show a certificate',
    },
    {
      command: 'k8s datastore --listen-address=unix:///run/datastore.sock',
      description: 'Serve on a Unix socket',
    },
  ],
  options: { ...configOption, ...settingsOf('datastore') },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const config = await loadAnyConfig({ ...sourcesOf(invocation), role: 'datastore' })
  if (config.role !== 'datastore') throw new Error('bug: the role is not what was asked for')
  return runDatastore(config, invocation)
}

/** Serves until a signal ends it; returns the exit code. */
export async function runDatastore(
  config: DatastoreConfig,
  { environment, print }: Invocation,
): Promise<number> {
  const settings: DatastoreSettings = {
    path: pathsOf(config).database,
    listen: listenAddress(config),
    progressNotifyIntervalMs: config.progressNotifyInterval,
    quotaBytes: config.quotaBackendBytes,
    maxRequestBytes: config.maxRequestBytes,
    maxTxnOperations: config.maxTxnOps,
    retentionMs: config.autoCompactionRetention,
    metricsListen: metricsAddress(config),
    advertiseClientUrls: config.advertiseClientUrls.length > 0 ? config.advertiseClientUrls : undefined,
  }
  requirePayload(environment)
  const [{ createLogger }, { openPayload }, { finishRestore }, { startDatastore }] = await Promise.all([
    import('../base/logger.ts'),
    import('../payload/payload.ts'),
    import('../snapshot/restore.ts'),
    import('../datastore/datastore.ts'),
  ])
  const payload = openPayload(environment['K8S_PAYLOAD_DIR'])
  const log = createLogger(loggerOptions(config))
  const stopped = new Promise<undefined>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve(undefined))
  })
  await finishRestore(pathsOf(config), payload.sqliteAddon)
  const running = await startDatastore({
    ...settings,
    nativeBinding: payload.sqliteAddon,
    etcdFileProgram: payload.bin('etcd-file'),
    workerUrl: payload.datastoreWorker,
    log,
  })
  keepRole(config, log)
  print(`serving on ${running.listening}\n`)
  if (running.metricsUrl !== undefined) print(`serving metrics on ${running.metricsUrl}/metrics\n`)
  const failure = await Promise.race([stopped, running.failed])
  if (failure !== undefined) throw failure
  await running.stop()
  return 0
}

/** A full disk is no reason not to serve what is on it. */
function keepRole(config: DatastoreConfig, log: Logger): void {
  try {
    keepFacts(config)
  } catch (error) {
    log.warn({ reason: describeError(error) }, 'cannot keep what this data directory is for')
  }
}

function listenAddress(config: DatastoreConfig): DatastoreSettings['listen'] {
  const { listenAddress: at } = config
  return 'unixPath' in at ? at : { ...at, tls: tlsFiles(config) }
}

function metricsAddress(config: DatastoreConfig): DatastoreSettings['metricsListen'] {
  if (config.metricsAddress === undefined) return undefined
  const { host, port, isTls } = config.metricsAddress
  return { host, port, tls: isTls ? tlsFiles(config) : undefined }
}

function tlsFiles({ certFile, keyFile, trustedCaFile }: DatastoreConfig): TlsFiles | undefined {
  return certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile, trustedCaFile }
}
