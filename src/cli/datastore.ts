import { directory, duration, file, integer } from '../config/table/kinds.ts'
import { Refused, type ValueKind } from '../config/table/option.ts'
import { paths } from '../config/paths.ts'
import type { DatastoreSettings } from '../datastore/datastore.ts'
import { AppError } from '../base/errors.ts'
import { type Command, type Invocation, optionValues, requirePayload } from './command.ts'

type TcpAddress = { readonly host: string; readonly port: number }
type Address = { readonly unixPath: string } | TcpAddress

const address: ValueKind<Address> = {
  placeholder: 'ADDRESS',
  allowed: 'HOST:PORT, [IPV6]:PORT or unix:///PATH',
  parse(text) {
    const unix = /^unix:\/\/(\/.+)$/.exec(text)
    if (unix?.[1] !== undefined) return { unixPath: unix[1] }
    const [, ipv6, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/]+)):([0-9]{1,5})$/.exec(text) ?? []
    const port = Number(digits)
    const host = ipv6 ?? name
    return host === undefined || !(port <= 65_535) ? new Refused() : { host, port }
  },
}

const tcpAddress: ValueKind<TcpAddress> = {
  placeholder: 'ADDRESS',
  allowed: 'HOST:PORT, [IPV6]:PORT, or http:// before one of them',
  parse(text) {
    const parsed = address.parse(text.replace(/^http:\/\//, ''))
    return 'host' in parsed ? parsed : new Refused()
  },
}

const options = {
  'data-dir': {
    group: 'Datastore',
    description: 'The data directory; the database is db/state.db in it.',
    kind: directory,
    default: '/var/lib/k8s',
  },
  'listen-address': {
    group: 'Datastore',
    description: 'Where clients connect. A Unix socket is for its owner alone.',
    kind: address,
    default: { host: '127.0.0.1', port: 2379 },
    defaultText: '127.0.0.1:2379',
  },
  'cert-file': { group: 'TLS', description: 'The certificate of the server, in PEM.', kind: file },
  'key-file': { group: 'TLS', description: 'The key of that certificate.', kind: file },
  'trusted-ca-file': {
    group: 'TLS',
    description: 'Clients must show a certificate of one of these authorities.',
    kind: file,
  },
  'progress-notify-interval': {
    group: 'Limits',
    description: 'How often watchers that ask for it are told that nothing has happened.',
    kind: duration,
    default: 600_000,
    defaultText: '10m',
  },
  'quota-backend-bytes': {
    group: 'Limits',
    description: 'The size of the database from which on writes are refused; 0 for none.',
    kind: integer({ from: 0, to: 9_999_999_999 }),
    default: 8 * 1024 ** 3,
  },
  'max-request-bytes': {
    group: 'Limits',
    description: 'The largest request that is taken.',
    kind: integer({ from: 1024, to: 128 * 1024 ** 2 }),
    default: 1.5 * 1024 ** 2,
  },
  'auto-compaction-retention': {
    group: 'Limits',
    description: 'History that is older is removed where no client asks for it; 0s leaves it to clients.',
    kind: duration,
    default: 600_000,
    defaultText: '10m',
  },
  'metrics-address': {
    group: 'Datastore',
    description:
      'Serve metrics (/metrics) and health (/health, /livez, /readyz) here over HTTP, as etcd does.',
    kind: tcpAddress,
    defaultText: 'nowhere',
  },
  'max-txn-ops': {
    group: 'Limits',
    description: 'The most operations in one transaction.',
    kind: integer({ from: 1, to: 100_000 }),
    default: 128,
  },
} as const

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
      command: 'k8s datastore --listen-address=unix:///run/datastore.sock',
      description: 'Serve on a Unix socket',
    },
  ],
  options,
  handler,
}

async function handler({ flags, environment, print }: Invocation): Promise<number> {
  const values = optionValues(options, flags)
  const settings: DatastoreSettings = {
    path: `${values.dataDir}/db/state.db`,
    listen: listenAddress(values),
    progressNotifyIntervalMs: values.progressNotifyInterval,
    quotaBytes: values.quotaBackendBytes,
    maxRequestBytes: values.maxRequestBytes,
    maxTxnOperations: values.maxTxnOps,
    retentionMs: values.autoCompactionRetention,
    metricsListen: values.metricsAddress,
  }
  requirePayload(environment)
  const [{ createLogger }, { openPayload }, { finishRestore }, { startDatastore }] = await Promise.all([
    import('../base/logger.ts'),
    import('../payload/payload.ts'),
    import('../snapshot/restore.ts'),
    import('../datastore/datastore.ts'),
  ])
  const payload = openPayload(environment['K8S_PAYLOAD_DIR'])
  const stopped = new Promise<undefined>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve(undefined))
  })
  await finishRestore(paths({ dataDir: values.dataDir }), payload.sqliteAddon)
  const running = await startDatastore({
    ...settings,
    nativeBinding: payload.sqliteAddon,
    etcdFileProgram: payload.bin('etcd-file'),
    workerUrl: payload.datastoreWorker,
    log: createLogger({ format: process.stderr.isTTY ? 'text' : 'json' }),
  })
  print(`serving on ${running.listening}\n`)
  if (running.metricsUrl !== undefined) print(`serving metrics on ${running.metricsUrl}/metrics\n`)
  const failure = await Promise.race([stopped, running.failed])
  if (failure !== undefined) throw failure
  await running.stop()
  return 0
}

function listenAddress(values: {
  listenAddress: Address
  certFile: string | undefined
  keyFile: string | undefined
  trustedCaFile: string | undefined
}): DatastoreSettings['listen'] {
  const { listenAddress: at, certFile, keyFile, trustedCaFile } = values
  if (certFile === undefined && keyFile === undefined && trustedCaFile === undefined) return at
  if (certFile === undefined || keyFile === undefined) {
    throw usageError('--cert-file and --key-file belong together, and --trusted-ca-file needs both')
  }
  if ('unixPath' in at)
    throw usageError('a Unix socket has no TLS: leave the files away, or listen on HOST:PORT')
  return { ...at, tls: { certFile, keyFile, trustedCaFile } }
}

function usageError(reason: string): AppError {
  return new AppError(`cannot serve the datastore: ${reason}`, { code: 'USAGE' })
}
