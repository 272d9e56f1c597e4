import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from '../unit/datastore/support.ts'
import { datastoreCommand } from './go-suite.ts'

/** Many watchers, slow ones, and ones that vanish, against a server in a process of its own. */

const put = '/etcdserverpb.KV/Put'
const watch = '/etcdserverpb.Watch/Watch'
const patience = { timeout: 60_000 }
const megabyte = 1024 * 1024

async function serve(): Promise<{ listening: string; residentBytes: () => number }> {
  const [program = '', ...args] = (await datastoreCommand('watchers')).split(' ')
  const child: ChildProcess = spawn(program, [...args, '--data-dir', temporaryDirectory()], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  onTestFinished(async () => {
    child.kill()
    await ended
  })
  let output = ''
  child.stdout?.on('data', (chunk) => (output += String(chunk)))
  await expect.poll(() => output, patience).toContain('serving on ')
  const status = `/proc/${child.pid}/status`
  return {
    listening: /serving on (\S+)/.exec(output)?.[1] ?? '',
    residentBytes: () => 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(status, 'utf8'))?.[1]),
  }
}

type Stream = ReturnType<RawClient['stream']>

function create(stream: Stream, key: string, options: Record<number, string | number> = {}): void {
  stream.write(message({ 1: message({ 1: key, ...options }) }))
}

/** Counts what comes in on a stream: watchers that were created, and events for each of them. */
function count(stream: Stream): { created: number; events: Map<bigint, number> } {
  const counts = { created: 0, events: new Map<bigint, number>() }
  stream.on('error', () => undefined)
  stream.on('data', (response: Buffer) => {
    const fields = fieldsOf(response)
    if (fields.has(3)) counts.created++
    const [id = 0n] = (fields.get(2) ?? []) as bigint[]
    const events = fields.get(11)?.length ?? 0
    if (events > 0) counts.events.set(id, (counts.events.get(id) ?? 0) + events)
  })
  return counts
}

test('10,000 watchers each get their event, once', async () => {
  const { listening, residentBytes } = await serve()
  const writer = new RawClient(listening)
  const streams = Array.from({ length: 100 }, () => new RawClient(listening).stream(watch))
  const counts = streams.map(count)
  for (const [at, stream] of streams.entries()) {
    // Half of them watch one key each, the others one prefix together.
    for (let watcher = 0; watcher < 50; watcher++) create(stream, `own/${at}/${watcher}`)
    for (let watcher = 0; watcher < 50; watcher++) {
      create(stream, 'shared/', { 2: 'shared0' })
    }
  }
  const sum = (of: (counts: { created: number; events: Map<bigint, number> }) => number): number =>
    counts.reduce((total, each) => total + of(each), 0)
  await expect.poll(() => sum(({ created }) => created), patience).toBe(10_000)
  await writer.unary(put, message({ 1: 'shared/x', 2: 'x' }))
  for (let at = 0; at < streams.length; at++) {
    for (let watcher = 0; watcher < 50; watcher++) {
      await writer.unary(put, message({ 1: `own/${at}/${watcher}`, 2: 'x' }))
    }
  }
  await expect.poll(() => sum(({ events }) => events.size), patience).toBe(10_000)
  expect(counts.flatMap(({ events }) => [...events.values()]).every((events) => events === 1)).toBe(true)
  expect(residentBytes()).toBeLessThan(300 * megabyte)
  for (const stream of streams) stream.cancel()
})

test('a watcher that does not read costs no memory, and misses nothing once it reads', async () => {
  const { listening, residentBytes } = await serve()
  const writer = new RawClient(listening)
  const stream = new RawClient(listening).stream(watch)
  stream.on('error', () => undefined)
  create(stream, 'slow/', { 2: 'slow0', 6: 1 })
  await delay(500)
  const before = residentBytes()
  const value = Buffer.alloc(500_000, 'v')
  const writes = 480
  for (let at = 0; at < writes; at += 8) {
    const keys = Array.from({ length: 8 }, (_, offset) => `slow/${(at + offset) % 10}`)
    await Promise.all(keys.map((key) => writer.unary(put, message({ 1: key, 2: value }))))
  }
  // 240 MB were written; previous values would double that.
  expect(residentBytes() - before).toBeLessThan(200 * megabyte)
  const revisions: number[] = []
  for await (const response of stream) {
    for (const event of (fieldsOf(response as Buffer).get(11) ?? []) as Buffer[]) {
      const keyValue = fieldsOf((fieldsOf(event).get(2) as Buffer[])[0] as Buffer)
      revisions.push(Number((keyValue.get(3) as bigint[])[0]))
    }
    if (revisions.length >= writes) break
  }
  stream.cancel()
  expect(revisions).toEqual(Array.from({ length: writes }, (_, at) => at + 2))
})

test('clients that vanish leave no watchers', async () => {
  const datastore = await runDatastore({
    path: join(temporaryDirectory(), 'state.db'),
    metricsListen: { host: '127.0.0.1', port: 0 },
  })
  const watchers = async (): Promise<string | undefined> => {
    const text = await (await fetch(`${datastore.metricsUrl ?? ''}/metrics`)).text()
    return /^etcd_debugging_mvcc_watcher_total (\d+)$/m.exec(text)?.[1]
  }
  const script = `
    const grpc = require('@grpc/grpc-js')
    const same = (bytes) => bytes
    const client = new grpc.Client(process.argv[1], grpc.credentials.createInsecure())
    const stream = client.makeBidiStreamRequest('${watch}', same, same)
    const request = Buffer.from(process.argv[2], 'hex')
    stream.on('data', () => undefined)
    for (let count = 0; count < 1000; count++) stream.write(request)
  `
  const request = message({ 1: message({ 1: 'a' }) }).toString('hex')
  const child = spawn(process.execPath, ['-e', script, new URL(datastore.listening).host, request], {
    stdio: 'inherit',
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  await expect.poll(watchers, patience).toBe('1000')
  child.kill('SIGKILL')
  await expect.poll(watchers, patience).toBe('0')
})
