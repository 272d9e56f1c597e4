import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { silentLogger } from '../../src/base/logger.ts'
import { startDatastore } from '../../src/datastore/datastore.ts'
import { inspectDatabase } from '../../src/datastore/log/inspect.ts'
import { EtcdClient } from '../../test/unit/datastore/etcd-client.ts'
import { fill, keyOf } from './fill.ts'

/**
 * How long requests wait while something large goes on: a get and a put each 2 ms, alone, beside a compaction of as
 * many old states as there are keys, and beside a HashKV. Prints one line for each.
 *
 *   node bench/datastore/hold-up.ts [KEYS]
 */
const keys = Number(process.argv[2] ?? 200_000)
const valueBytes = 1500
const probeIntervalMs = 2
const quietMs = 10_000

const directory = mkdtempSync(join(process.env['BENCH_DIR'] ?? '/var/tmp', 'k8s-hold-up-'))
const path = join(directory, 'state.db')
const datastore = await startDatastore({
  path,
  listen: { unixPath: join(directory, 'datastore.sock') },
  workerUrl: new URL('../../src/datastore/worker.ts', import.meta.url),
  log: silentLogger,
})
try {
  const client = new EtcdClient(datastore.listening)
  await fill(client, { keys, valueBytes })
  await fill(client, { keys, valueBytes })
  await sleep(2000)
  await probe('alone', () => sleep(quietMs))
  const before = inspectDatabase({ path })
  const revision = await client.revision()
  await probe('compaction', () => client.compact(revision))
  await probe('after it (space is given back)', () => client.call('Maintenance/Defragment', Buffer.alloc(0)))
  const after = inspectDatabase({ path })
  await probe('HashKV', () => client.call('Maintenance/HashKV', Buffer.alloc(0)))
  console.log(`file: ${mebibytes(before.fileBytes)} MiB before, ${mebibytes(after.fileBytes)} MiB after`)
  client.close()
} finally {
  await datastore.stop()
  rmSync(directory, { recursive: true })
}

async function probe(name: string, start: () => Promise<unknown>): Promise<void> {
  const reader = new EtcdClient(datastore.listening)
  const writer = new EtcdClient(datastore.listening)
  await Promise.all([reader.get('x'), writer.put('/probe/0', Buffer.alloc(1))])
  const gets: number[] = []
  const puts: number[] = []
  let walBytes = 0
  let isDone = false
  const startMs = performance.now()
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const loop = async (into: number[], request: (count: number) => Promise<unknown>): Promise<void> => {
    for (let count = 0; !isDone; count++) {
      const sentMs = performance.now()
      await request(count)
      into.push(performance.now() - sentMs)
      await sleep(probeIntervalMs)
    }
  }
  const value = Buffer.alloc(valueBytes, 'probe')
  const work = start().finally(() => (isDone = true))
  await Promise.all([
    loop(gets, (count) => reader.get(keyOf((count * 7919) % keys))),
    loop(puts, (count) => writer.put(`/probe/${count % 100}`, value)),
    (async () => {
      for (; !isDone; await sleep(20)) walBytes = Math.max(walBytes, statSync(`${path}-wal`).size)
    })(),
  ])
  delay.disable()
  await work
  reader.close()
  writer.close()
  console.log(
    [
      `${name}: ${((performance.now() - startMs) / 1000).toFixed(1)} s`,
      `get ${quantiles(gets)}`,
      `put ${quantiles(puts)}`,
      `the prober itself ${(delay.max / 1e6).toFixed(1)} ms`,
      `WAL ${mebibytes(walBytes)} MiB`,
    ].join('; '),
  )
}

function quantiles(values: number[]): string {
  const sorted = values.toSorted((one, other) => one - other)
  const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1)
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, longest ${at(1)} ms of ${sorted.length}`
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0)
}
