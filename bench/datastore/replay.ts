import { statSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { inspectDatabase } from '../../src/datastore/log/inspect.ts'
import { Log } from '../../src/datastore/log/log.ts'
import { LogReader } from '../../src/datastore/log/log-reader.ts'
import { Engine } from '../../src/datastore/mvcc/engine.ts'
import type { WorkerData } from '../../src/datastore/messages.ts'

const workerUrl = new URL('../../src/datastore/worker.ts', import.meta.url)
const cacheBytes = 8 * 1024 * 1024

/** Of a cluster, in seconds and bytes; what a thousand nodes with ten pods each do all day. */
const cluster = {
  nodeLease: { everySeconds: 10, bytes: 380 },
  nodeStatus: { everySeconds: 300, bytes: 8000 },
  podsPerNode: 10,
  pod: { lifeSeconds: 5000, bytes: 3500, updates: 4 },
  eventsPerPod: 3,
  event: { ttlSeconds: 3600, bytes: 900 },
  /** kube-apiserver ties up to a thousand events to one lease, for a minute. */
  eventLeaseSeconds: 60,
  endpointSlice: { count: 200, bytes: 5000 },
  /** kube-apiserver compacts at the revision that it noted the last time. */
  compactionSeconds: 300,
} as const

/** What is written together: the clock goes on by this much at a time. */
const stepSeconds = 5

export interface ReplayResult {
  readonly writes: number
  readonly seconds: number
  readonly longestWalBytes: number
  /** The file's size over that of the keys and values in it, after each compaction but the first hour's. */
  readonly worstRatio: number
  readonly lastFileBytes: number
  readonly lastRowBytes: number
  readonly versions: number
}

export interface ReplayOptions {
  readonly path: string
  readonly nodes: number
  readonly hours: number
  readonly progress?: (line: string) => void
}

/**
 * Hours of a busy cluster as fast as the disk takes them, on the engine itself: renewals of the nodes' leases,
 * statuses, pods that come and go, events that expire, and the compactions that kube-apiserver asks for.
 */
export async function replay(options: ReplayOptions): Promise<ReplayResult> {
  const { path, hours } = options
  const database = { path, cacheBytes }
  const data: WorkerData = { role: 'log-writer', database }
  const log = new Log(database, new Worker(workerUrl, { workerData: data }))
  const engine = new Engine({
    log,
    quotaBytes: 0,
    onFailure: (error) => {
      throw error
    },
    onTrouble: (error) => {
      throw error
    },
  })
  const run = new Replay(engine, options)
  const started = performance.now()
  let longestWalBytes = 0
  let worstRatio = 0
  let notedRevision = 0
  for (let second = 0; second < hours * 3600; second += stepSeconds) {
    run.step(second)
    await new Promise((resolve) => engine.afterCommit(resolve))
    longestWalBytes = Math.max(longestWalBytes, statSync(`${path}-wal`).size)
    if (second % cluster.compactionSeconds !== 0) continue
    const revision = notedRevision
    if (revision > 1) await new Promise<void>((resolve) => engine.compact(revision, resolve))
    notedRevision = engine.store.revision
    if (second % 3600 !== 0 || second === 0) continue
    const ratio = statSync(path).size / rowBytes(path)
    worstRatio = Math.max(worstRatio, ratio)
    options.progress?.(
      `hour ${second / 3600}: ${run.writes} writes, file ${mebibytes(statSync(path).size)} MiB, ${ratio.toFixed(2)} times its rows, WAL up to ${mebibytes(longestWalBytes)} MiB`,
    )
  }
  const seconds = (performance.now() - started) / 1000
  const lastRowBytes = rowBytes(path)
  engine.stop()
  await log.close()
  const { fileBytes, versions } = inspectDatabase({ path })
  worstRatio = Math.max(worstRatio, fileBytes / lastRowBytes)
  return {
    ...{ writes: run.writes, seconds, longestWalBytes, worstRatio },
    ...{ lastFileBytes: fileBytes, lastRowBytes, versions },
  }
}

/** The bytes of all keys and values that are kept, without what the database needs to keep them. */
function rowBytes(path: string): number {
  using reader = new LogReader({ path, cacheBytes })
  let bytes = 0
  for (let state = reader.next(); state !== undefined; state = reader.next()) {
    bytes += state.key.length + state.value.length
  }
  return bytes
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0)
}

interface Pod {
  readonly key: string
  readonly diesAt: number
  updatesLeft: number
}

class Replay {
  readonly #engine: Engine
  readonly #nodes: number
  #pods: Pod[] = []
  #podsMade = 0
  #events = 0
  #eventLease = 0n
  #leases: { id: bigint; endsAt: number }[] = []
  writes = 0

  constructor(engine: Engine, { nodes }: ReplayOptions) {
    this.#engine = engine
    this.#nodes = nodes
  }

  /** What happens within one step of the clock. */
  step(second: number): void {
    this.#expireEvents(second)
    this.#each(cluster.nodeLease.everySeconds, second, (node) =>
      this.#put(`/registry/leases/kube-node-lease/node-${node}`, cluster.nodeLease.bytes),
    )
    this.#each(cluster.nodeStatus.everySeconds, second, (node) =>
      this.#put(`/registry/minions/node-${node}`, cluster.nodeStatus.bytes),
    )
    this.#churn(second)
  }

  /** Every node has its turn once in so many seconds, evenly spread. */
  #each(everySeconds: number, second: number, act: (node: number) => void): void {
    const steps = everySeconds / stepSeconds
    const turn = (second / stepSeconds) % steps
    for (let node = turn; node < this.#nodes; node += steps) act(node)
  }

  #churn(second: number): void {
    const { pod, podsPerNode, endpointSlice } = cluster
    const wanted = this.#nodes * podsPerNode
    for (const living of this.#pods) {
      if (living.updatesLeft === 0) continue
      living.updatesLeft--
      this.#put(living.key, pod.bytes)
    }
    const dead = this.#pods.filter(({ diesAt }) => diesAt <= second)
    for (const { key } of dead) {
      this.#put(key, pod.bytes)
      this.#delete(key)
    }
    if (dead.length > 0) this.#pods = this.#pods.filter(({ diesAt }) => diesAt > second)
    // All at once at the start, which is then spread by their lives.
    while (this.#pods.length < wanted) {
      const number = this.#podsMade++
      const key = `/registry/pods/namespace-${number % 50}/workload-${number % 500}-${number.toString(36)}`
      const share = number < wanted ? (number + 1) / wanted : 1
      this.#pods.push({ key, diesAt: second + pod.lifeSeconds * share, updatesLeft: pod.updates })
      this.#put(key, pod.bytes)
      this.#put(
        `/registry/endpointslices/namespace-${number % 50}/slice-${number % endpointSlice.count}`,
        endpointSlice.bytes,
      )
      for (let event = 0; event < cluster.eventsPerPod; event++) this.#event(number, second)
    }
  }

  #event(pod: number, second: number): void {
    const { event } = cluster
    const last = this.#leases.at(-1)
    if (last === undefined || last.endsAt - event.ttlSeconds < second) {
      // The clock of the leases is the real one, which must not end them before ours does.
      this.#eventLease = this.#engine.grantLease({ id: 0n, ttlSeconds: 1_000_000 }).id
      const endsAt = second + event.ttlSeconds + cluster.eventLeaseSeconds
      this.#leases.push({ id: this.#eventLease, endsAt })
    }
    const key = `/registry/events/namespace-${pod % 50}/workload-${pod}.${(this.#events++).toString(16)}`
    this.#put(key, event.bytes, this.#eventLease)
  }

  #expireEvents(second: number): void {
    while (this.#leases[0] !== undefined && this.#leases[0].endsAt <= second) {
      this.#engine.revokeLease(this.#leases[0].id)
      this.#leases.shift()
      this.writes++
    }
  }

  #put(key: string, bytes: number, lease = 0n): void {
    // Sizes differ by a tenth, contents by the write.
    const value = Buffer.alloc(Math.round(bytes * (0.95 + (this.writes % 100) / 1000)), `${this.writes} `)
    this.#engine.put({
      ...{ kind: 'put', key, value, lease },
      ...{ previousKv: false, ignoreValue: false, ignoreLease: false },
    })
    this.writes++
  }

  #delete(key: string): void {
    this.#engine.deleteRange({ kind: 'delete-range', key, end: '', previousKv: false })
    this.writes++
  }
}
