import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import * as grpc from '@grpc/grpc-js'
import { repository } from '../../test/integration/harness/machine.ts'
import { EtcdClient } from '../../test/unit/datastore/etcd-client.ts'
import { fieldsOf, message } from '../../test/unit/datastore/wire.ts'
import { fill, keyOf } from './fill.ts'

/**
 * The memory of `k8s datastore` with many keys and watchers: its proportional set size after each stage, and the
 * most that it ever was. Exits with 1 when a stage takes more than 300 MB.
 *
 *   node bench/datastore/memory.ts [KEYS [WATCHERS]]
 */
const keys = Number(process.argv[2] ?? 200_000)
const watchers = Number(process.argv[3] ?? 10_000)
const valueBytes = 1500
const watchersPerStream = 100
const streamsPerConnection = 20
const updates = 20_000
const limitBytes = 300e6
const settleMs = 8000

const payload = process.env['K8S_PAYLOAD_DIR'] ?? join(repository, 'build/payload')
const directory = mkdtempSync(join(process.env['BENCH_DIR'] ?? '/var/tmp', 'k8s-memory-'))
const socket = join(directory, 'datastore.sock')
const flags = [`--data-dir=${directory}`, `--listen-address=unix://${socket}`]
const node = join(repository, 'build/payload/bin/node')
const child = spawn(node, [join(payload, 'lib/main.js'), 'datastore', ...flags], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, K8S_PAYLOAD_DIR: payload },
})
try {
  await once(createInterface(child.stdout), 'line')
  const client = new EtcdClient(`unix://${socket}`)
  await report('empty')
  await fill(client, { keys, valueBytes })
  await report(`${keys} keys of ${valueBytes} bytes`)
  const events = await watch()
  await report(`and ${watchers} watchers`)
  for (let first = 0; first < updates; first += 64) {
    const batch = Array.from({ length: 64 }, (_, place) =>
      client.put(keyOf((first + place) % keys), Buffer.alloc(valueBytes, 'new')),
    )
    await Promise.all(batch)
  }
  await report(`and ${updates} updates, ${events()} events`)
  for (let page = 0; page < keys; page += 500) {
    await client.call('KV/Range', message({ 1: keyOf(page), 2: keyOf(page + 500), 3: 500 }))
  }
  await report('and all keys read in pages')
  await client.compact(await client.revision())
  await report('and a compaction')
  child.kill('SIGTERM')
  await once(child, 'exit')
} finally {
  child.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
}
process.exit()

async function report(stage: string): Promise<void> {
  await sleep(settleMs)
  const bytes = kilobytes('smaps_rollup', 'Pss') * 1024
  const peakBytes = kilobytes('status', 'VmHWM') * 1024
  if (bytes > limitBytes) process.exitCode = 1
  console.log(`${stage}: ${(bytes / 1e6).toFixed(0)} MB, at most ${(peakBytes / 1e6).toFixed(0)} MB so far`)
}

function kilobytes(file: string, name: string): number {
  const text = readFileSync(`/proc/${child.pid}/${file}`, 'latin1')
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? Number.NaN)
}

/** Watchers of a key each, a hundred on a stream; returns how to ask for the number of events that came. */
async function watch(): Promise<() => number> {
  let events = 0
  let created = 0
  const all = Promise.withResolvers<void>()
  let client: grpc.Client | undefined
  for (let stream = 0; stream * watchersPerStream < watchers; stream++) {
    if (stream % streamsPerConnection === 0) {
      // A channel that shares no connection with the others.
      const options = { 'grpc.use_local_subchannel_pool': 1 }
      client = new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure(), options)
    }
    const call = (client as grpc.Client).makeBidiStreamRequest('/etcdserverpb.Watch/Watch', same, same)
    call.on('error', () => undefined)
    call.on('data', (response: Buffer) => {
      const fields = fieldsOf(response)
      events += fields.get(11)?.length ?? 0
      if (fields.get(3) !== undefined && ++created === watchers) all.resolve()
    })
    for (let place = 0; place < watchersPerStream; place++) {
      const watched = (stream * watchersPerStream + place) % keys
      call.write(message({ 1: message({ 1: keyOf(watched), 2: keyOf(watched + 1), 6: 1 }) }))
    }
  }
  await all.promise
  return () => events
}

function same(bytes: Buffer): Buffer {
  return bytes
}
