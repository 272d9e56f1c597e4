import type { DatastoreConfig } from '../config/config.ts'
import { loadAnyConfig } from '../config/load.ts'
import { settingsOf } from '../config/schema.ts'
import type { DatastoreSettings, TlsFiles } from '../datastore/datastore.ts'
import { type Command, configOption, type Invocation, requirePayload, sourcesOf } from './command.ts'
import { runOptions } from './run-options.ts'

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
export async function runDatastore(config: DatastoreConfig, { environment }: Invocation): Promise<number> {
  requirePayload(environment)
  const options = await runOptions(config, environment)
  const daemon = await import('../cluster/run-datastore.ts')
  await daemon.runDatastore(config, {
    ...options,
    settings: {
      listen: listenAddress(config),
      progressNotifyIntervalMs: config.progressNotifyInterval,
      quotaBytes: config.quotaBackendBytes,
      maxRequestBytes: config.maxRequestBytes,
      maxTxnOperations: config.maxTxnOps,
      retentionMs: config.autoCompactionRetention,
      metricsListen: metricsAddress(config),
      advertiseClientUrls: config.advertiseClientUrls.length > 0 ? config.advertiseClientUrls : undefined,
    },
  })
  return 0
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
