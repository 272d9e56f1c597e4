import { Exposition, processMetrics } from '../../base/exposition.ts'
import type { Histogram } from '../../base/histogram.ts'
import type { Methods } from '../grpc/http2/call.ts'
import { etcdVersion } from '../grpc/services/maintenance.ts'
import { codeNames } from '../grpc/status.ts'
import type { Engine } from '../mvcc/engine.ts'

/** What the metrics tell of. All of it is read when it is asked for; only calls are counted as they end. */
export interface MetricsSource {
  readonly engine: Engine
  readonly commits: Histogram
  readonly methods: Methods
  readonly memberId: bigint
  readonly walBytes: () => number
}

/** Metrics have etcd's names where they mean what etcd's mean. */
export function renderMetrics(source: MetricsSource): string {
  const metrics = new Exposition()
  serverMetrics(metrics, source)
  storeMetrics(metrics, source)
  callMetrics(metrics, source)
  processMetrics(metrics)
  return metrics.text
}

function serverMetrics(metrics: Exposition, { engine, memberId }: MetricsSource): void {
  metrics.gauge('etcd_server_has_leader', 'Whether a leader exists: the single member is it.', 1)
  metrics.gauge('etcd_server_is_leader', 'Whether this member is the leader.', 1)
  metrics.counter('etcd_server_leader_changes_seen_total', 'The number of leader changes seen.', 1)
  metrics.gauge('etcd_server_is_learner', 'Whether this member is a learner.', 0)
  metrics.gauge('etcd_server_id', 'Server or member ID in hexadecimal format.', 1, {
    server_id: memberId.toString(16),
  })
  metrics.gauge('etcd_server_version', 'The version of etcd whose behaviour is followed.', 1, {
    server_version: etcdVersion,
  })
  metrics.gauge(
    'etcd_server_quota_backend_bytes',
    'Current backend storage quota size in bytes.',
    engine.quotaBytes,
  )
  metrics.gauge('k8s_datastore_no_space', 'Whether the alarm NOSPACE is set.', engine.hasNoSpace ? 1 : 0)
}

function storeMetrics(metrics: Exposition, { engine, commits, walBytes }: MetricsSource): void {
  const { store, space, hub, lessor } = engine
  const watchers = hub.watchers
  metrics.gauge('etcd_mvcc_db_total_size_in_bytes', 'Size of the database file in bytes.', space.bytes)
  metrics.gauge(
    'etcd_mvcc_db_total_size_in_use_in_bytes',
    'Size of the part of the database file that is in use, in bytes.',
    space.bytesInUse,
  )
  metrics.gauge(
    'k8s_datastore_wal_bytes',
    'Size of the write-ahead log beside the file, in bytes.',
    walBytes(),
  )
  metrics.gauge('etcd_debugging_mvcc_current_revision', 'The current revision of store.', store.revision)
  metrics.gauge(
    'etcd_debugging_mvcc_compact_revision',
    'The revision of the last compaction in store.',
    store.compactedRevision,
  )
  metrics.gauge('etcd_debugging_mvcc_keys_total', 'Total number of keys.', store.index.size)
  metrics.gauge('etcd_debugging_mvcc_watcher_total', 'Total number of watchers.', watchers.all)
  metrics.gauge(
    'etcd_debugging_mvcc_slow_watcher_total',
    'Total number of unsynced slow watchers.',
    watchers.behind,
  )
  metrics.gauge('k8s_datastore_leases', 'Number of leases.', lessor.size)
  metrics.histogram(
    'etcd_disk_backend_commit_duration_seconds',
    'How long commits took, each with its fsync.',
    commits,
  )
}

function callMetrics(metrics: Exposition, { methods }: MetricsSource): void {
  metrics.counters(
    'grpc_server_handled_total',
    'Total number of RPCs completed on the server, regardless of success or failure.',
    handledSamples(methods),
  )
}

function* handledSamples(methods: Methods): Generator<[Record<string, string>, number]> {
  for (const [path, { handled }] of methods) {
    const [, service = '', method = ''] = path.split('/')
    for (const [code, name] of codeNames.entries()) {
      const count = handled?.[code] ?? 0
      // OK is always told, so that a rate begins at 0; the other codes once they have come up.
      if (count === 0 && code !== 0) continue
      yield [{ grpc_code: name, grpc_method: method, grpc_service: service }, count]
    }
  }
}
