import type { TlsFiles } from './grpc/certificates.ts'
import type { ListenAddress } from './grpc/server.ts'

/** What a datastore is run with; everything is plain data, so that it can change threads. */
export interface DatastoreSettings {
  /** The database file; its directory is made when it is missing. */
  readonly path: string
  readonly listen: ListenAddress
  /** The path of better_sqlite3.node where it is not in node_modules. */
  readonly nativeBinding?: string | undefined
  /** The program etcd-file, which makes what Maintenance.Snapshot sends; without it there are no snapshots. */
  readonly etcdFileProgram?: string | undefined
  readonly progressNotifyIntervalMs?: number | undefined
  /** 0 means no quota. */
  readonly quotaBytes?: number | undefined
  readonly maxRequestBytes?: number | undefined
  readonly maxTxnOperations?: number | undefined
  /** History that is older is compacted where nobody else does it; 0 leaves it to others. */
  readonly retentionMs?: number | undefined
  /** Where clients are told to go: URLs. Without them they are chosen. */
  readonly advertiseClientUrls?: readonly string[] | undefined
  /** The heap of the thread that serves; what it keeps in memory beside the live keys is a part of this. */
  readonly heapBytes?: number | undefined
  /** Where metrics and health are served over HTTP; nowhere without it. */
  readonly metricsListen?: MetricsAddress | undefined
}

export interface MetricsAddress {
  readonly host: string
  readonly port: number
  readonly tls?: TlsFiles | undefined
}

/** etcd's defaults (server/embed/config.go), but for the quota, which is 2 GB there, and the retention, which is off. */
export const defaultSettings = {
  progressNotifyIntervalMs: 10 * 60_000,
  quotaBytes: 8 * 1024 ** 3,
  maxRequestBytes: 1.5 * 1024 * 1024,
  maxTxnOperations: 128,
  retentionMs: 10 * 60_000,
} as const
