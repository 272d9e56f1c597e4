import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import Database from 'better-sqlite3'
import { expect, onTestFinished, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'
import { EtcdClient } from './etcd-client.ts'
import { message, runDatastore, temporaryDirectory, workerUrl } from './support.ts'

const fullProgram = new URL('./disk-full.ts', import.meta.url).pathname
const fullStartProgram = new URL('./disk-full-start.ts', import.meta.url).pathname
const healsProgram = new URL('./disk-heals.ts', import.meta.url).pathname
const startProgram = new URL('./start-once.ts', import.meta.url).pathname
const noSpace = '8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded'
const noSpaceAlarm = 1
const large = Buffer.alloc(1024 * 1024)

/** A RequestOp with one field: 2 is a put, 4 a transaction. */
function operation(field: number, fields: Parameters<typeof message>[0]): Buffer {
  return message({ [field]: message(fields) })
}

function clientOf(listening: string): EtcdClient {
  const client = new EtcdClient(listening)
  onTestFinished(() => client.close())
  return client
}

test('a full disk refuses writes; reads and watches go on, nothing is damaged, and it can be left again', async () => {
  const script = 'mount -t tmpfs -o size=12m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
  const { stdout } = await inNamespace(script, temporaryDirectory(), fullProgram)
  const seen = JSON.parse(stdout) as { revision: number; after: { revision: number } }
  expect(seen).toMatchObject({
    refusal: noSpace,
    readBytes: 10_000,
    readRevision: seen.revision,
    count: 100,
    alarms: [noSpaceAlarm],
    refusedDelete: noSpace,
    found: [],
    stillRefused: noSpace,
    after: { alarms: [], revision: seen.revision + 50 },
    isWatchComplete: true,
    events: seen.after.revision - 101,
    restarted: { count: 100, revision: seen.after.revision },
    foundAfter: [],
  })
})

test('a full disk that is freed takes writes again without anybody’s help', async () => {
  const script = 'mount -t tmpfs -o size=48m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
  const { stdout } = await inNamespace(script, temporaryDirectory(), healsProgram)
  expect(JSON.parse(stdout)).toEqual({
    troubleBefore: null,
    refusal: noSpace,
    trouble: expect.stringContaining('its disk is full'),
    after: { alarms: [], trouble: null },
    found: [],
  })
})

test('a start while the disk is full serves what is there, or says that it is full', async () => {
  const script = 'mount -t tmpfs -o size=12m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
  const { stdout } = await inNamespace(script, temporaryDirectory(), fullStartProgram)
  expect(JSON.parse(stdout)).toMatchObject({
    refusal: noSpace,
    again: { count: 50, refusal: noSpace, trouble: expect.stringContaining('its disk is full') },
    other: {
      code: 'DATASTORE_NO_SPACE',
      message: expect.stringContaining('cannot open datastore: its disk is full'),
    },
  })
})

test('the quota sets the alarm, which lets what frees space through and outlives a restart', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const quotaBytes = 4 * 1024 * 1024
  const first = await runDatastore({ path, quotaBytes })
  const client = clientOf(first.listening)
  const value = Buffer.alloc(64 * 1024, 'v')
  let refusal = ''
  for (let count = 0; refusal === ''; count++) {
    await client.put(`key-${count % 10}`, value).catch((error: Error) => (refusal = error.message))
  }
  expect(refusal).toBe(noSpace)
  expect(await client.alarms()).toEqual([noSpaceAlarm])
  await first.stop()

  const second = await runDatastore({ path, quotaBytes })
  const again = clientOf(second.listening)
  expect(await again.alarms()).toEqual([noSpaceAlarm])
  await expect(again.put('key-1', value)).rejects.toThrow(noSpace)
  const revision = await again.delete('key-9')
  await again.compact(revision)
  await again.call('Maintenance/Defragment', Buffer.alloc(0))
  await expect(again.put('key-1', value)).rejects.toThrow(noSpace)
  await again.disarm()
  expect(await again.put('key-1', value)).toBe(revision + 1)
  expect(await again.alarms()).toEqual([])
})

test.each([
  ['a put', 'KV/Put', message({ 1: 'large', 2: large })],
  ['a transaction', 'KV/Txn', message({ 2: operation(2, { 1: 'large', 2: large }) })],
  ['the branch that is not taken', 'KV/Txn', message({ 3: operation(2, { 1: 'large', 2: large }) })],
  [
    'a nested transaction',
    'KV/Txn',
    message({ 2: operation(4, { 2: operation(2, { 1: 'large', 2: large }) }) }),
  ],
])('%s that would overshoot the quota is refused, and nothing of it is kept', async (_, method, request) => {
  const quotaBytes = 1024 * 1024
  const { listening } = await runDatastore({ path: join(temporaryDirectory(), 'state.db'), quotaBytes })
  const client = clientOf(listening)
  await client.put('small', Buffer.from('v'))
  await expect(client.call(method, request)).rejects.toThrow(noSpace)
  expect(await client.get('large')).toBeUndefined()
  expect(await client.alarms()).toEqual([noSpaceAlarm])
  await client.disarm()
  expect(await client.put('small', Buffer.from('v'))).toBe(3)
})

test('what waits for the disk counts towards the quota', async () => {
  const quotaBytes = 4 * 1024 * 1024
  const { listening } = await runDatastore({ path: join(temporaryDirectory(), 'state.db'), quotaBytes })
  const client = clientOf(listening)
  // All of them are taken in before the first is on disk.
  const value = Buffer.alloc(1024 * 1024)
  const puts = Array.from({ length: 20 }, (_, at) => client.put(`key-${at}`, value))
  const outcomes = await Promise.allSettled(puts)
  expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeLessThan(4)
})

test('a value that cannot be read fails those who ask for it, and is told; all else goes on', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const writing = await startDatastore({
    path,
    listen: { host: '127.0.0.1', port: 0 },
    workerUrl,
    log: silentLogger,
  })
  const writer = new EtcdClient(writing.listening)
  // Each value fills pages of its own.
  for (const key of ['a', 'broken', 'z']) await writer.put(key, Buffer.alloc(3000, key))
  writer.close()
  await writing.stop()
  overwritePageOf(path, Buffer.alloc(2900, 'broken'))

  const told: object[] = []
  const log = { ...silentLogger, error: (fields: object) => told.push(fields) } as unknown as Logger
  const datastore = await runDatastore({ path, log })
  const client = clientOf(datastore.listening)
  const dataLoss = /^15 DATA_LOSS: k8s: a value cannot be read: the database or its disk is damaged/
  await expect(client.get('broken')).rejects.toThrow(dataLoss)
  await expect(client.get('broken')).rejects.toThrow(dataLoss)
  expect(await client.get('a')).toEqual(Buffer.alloc(3000, 'a'))
  expect(told).toMatchObject([
    { code: 'DATASTORE_DAMAGED_VALUE', path, remedy: expect.stringContaining('k8s db check') },
  ])
  const events = await client.watch('z')
  const revision = await client.put('z', Buffer.from('new'))
  await expect.poll(() => events).toEqual([revision])
  expect(checkDatabase({ path })).not.toEqual([])
  await client.put('broken', Buffer.from('mended'))
  expect(await client.get('broken')).toEqual(Buffer.from('mended'))
})

test('a database that cannot be written ends the datastore with the reason, and keeps what it has', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const datastore = await runDatastore({ path })
  const client = clientOf(datastore.listening)
  await client.put('a', Buffer.from('kept'))
  const intruder = new Database(path)
  intruder.exec('BEGIN IMMEDIATE')
  onTestFinished(() => void intruder.close())
  client.put('a', Buffer.from('lost')).catch(() => undefined)
  expect(await datastore.failed).toMatchObject({
    code: 'DATASTORE_WRITE',
    message: expect.stringContaining('cannot write to the datastore: SQLITE_BUSY'),
    remedy: 'Check the disk, then start again; what was acknowledged is kept.',
  })
  intruder.exec('ROLLBACK')
  expect(checkDatabase({ path })).toEqual([])
  const again = clientOf((await runDatastore({ path })).listening)
  expect(await again.get('a')).toEqual(Buffer.from('kept'))
})

test('a database on a read-only file system is refused by name', async () => {
  const directory = temporaryDirectory()
  const path = join(directory, 'state.db')
  await (await runDatastore({ path })).stop()
  const script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" "$3" "$1" "$4"'
  const { stdout } = await inNamespace(script, directory, startProgram)
  expect(JSON.parse(stdout)).toMatchObject({ code: 'DATASTORE_OPEN', path: path })
})

/** Runs a program in a mount namespace of its own. */
function inNamespace(script: string, directory: string, program: string) {
  const namespace = process.getuid?.() === 0 ? ['--mount'] : ['--map-root-user', '--mount']
  const args = ['sh', '-c', script, 'sh', directory, process.execPath, program, workerUrl.href]
  return promisify(execFile)('unshare', [...namespace, ...args])
}

/** Makes the page of the file that has these bytes one that SQLite refuses. */
function overwritePageOf(path: string, contents: Buffer): void {
  const bytes = readFileSync(path)
  const at = bytes.indexOf(contents)
  expect(at).toBeGreaterThan(0)
  const page = at - (at % 4096)
  bytes.fill(0xff, page, page + 64)
  writeFileSync(path, bytes)
}
