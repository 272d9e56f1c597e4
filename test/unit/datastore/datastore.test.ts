import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import {
  type Fields,
  RawClient,
  fieldsOf,
  message,
  runDatastore,
  temporaryDirectory,
  workerUrl,
} from './support.ts'

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href)
const put = '/etcdserverpb.KV/Put'
const range = '/etcdserverpb.KV/Range'

/** The revision in a response's header. */
function revisionOf(response: Buffer): number {
  const [header = Buffer.alloc(0)] = fieldsOf(response).get(1) as Buffer[]
  return Number((fieldsOf(header).get(3) as bigint[])[0])
}

function keyValuesOf(response: Buffer): Fields[] {
  return ((fieldsOf(response).get(2) ?? []) as Buffer[]).map(fieldsOf)
}

test('what was acknowledged is there after a restart, at the same revision', async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const first = await runDatastore({ path })
  const client = new RawClient(first.listening)
  expect(revisionOf(await client.unary(range, message({ 1: 'a' })))).toBe(1)
  expect(revisionOf(await client.unary(put, message({ 1: 'a', 2: 'one' })))).toBe(2)
  expect(revisionOf(await client.unary(put, message({ 1: 'a', 2: 'two' })))).toBe(3)
  await first.stop()

  const second = await runDatastore({ path })
  const response = await new RawClient(second.listening).unary(range, message({ 1: 'a' }))
  expect(revisionOf(response)).toBe(3)
  const [keyValue] = keyValuesOf(response)
  expect(keyValue).toEqual(
    new Map<number, unknown[]>([
      [1, [Buffer.from('a')]],
      [2, [2n]],
      [3, [3n]],
      [4, [2n]],
      [5, [Buffer.from('two')]],
    ]),
  )
})

test('whoever watches it hears that its thread goes round', async () => {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'db/state.db') })
  await expect(Promise.all([datastore.ping(), datastore.ping()])).resolves.toHaveLength(2)
})

test('a thread that hangs in a system call keeps neither the stop nor the process', async () => {
  const pipe = join(temporaryDirectory(), 'pipe')
  execFileSync('mkfifo', [pipe])
  const program = join(import.meta.dirname, '../../fixtures/stuck-worker.ts')
  const child = spawn(process.execPath, [program, pipe], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said = text(child.stdout)
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
  expect(await said).toBe('cannot stop the datastore: its thread hangs in a system call\n')
})

test('the database has one process at a time, which the next one is told', async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const first = await runDatastore({ path })
  await expect(runDatastore({ path })).rejects.toMatchObject({
    code: 'DATASTORE_LOCKED',
    message: `cannot open datastore: process ${process.pid} has it`,
  })
  await first.stop()
  await runDatastore({ path })
})

test.runIf(process.getuid?.() === 0)('a Unix socket may be in a directory that is a mount', () => {
  const program = `
    import { silentLogger as log } from ${source('base/logger.ts')}
    import { GrpcServer } from ${source('datastore/grpc/server.ts')}
    const server = new GrpcServer({ methods: new Map(), maxMessageBytes: 1024, log })
    await server.listen({ unixPath: process.argv[1] + '/datastore.sock' })
    process.stdout.write('listens')
    await server.stop()`
  const shell = 'mount -t tmpfs tmpfs "$0" && exec "$@" "$0"'
  const node = [process.execPath, '--input-type=module', '--eval', program]
  const command = ['--mount', '--propagation', 'private', 'sh', '-c', shell, temporaryDirectory(), ...node]
  expect(execFileSync('unshare', command, { encoding: 'utf8' })).toBe('listens')
})

test('a Unix socket and the files are for their owner alone', async () => {
  const directory = temporaryDirectory()
  const path = join(directory, 'db/state.db')
  const unixPath = join(directory, 'datastore.sock')
  const datastore = await runDatastore({ path, listen: { unixPath } })
  expect(datastore.listening).toBe(`unix://${unixPath}`)
  for (const file of [unixPath, path, `${path}-wal`]) expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(statSync(join(directory, 'db')).mode & 0o777).toBe(0o700)
  expect(revisionOf(await new RawClient(datastore.listening).unary(put, message({ 1: 'a' })))).toBe(2)
})

test('a socket that a killed process left is replaced; another file, or a socket in use, is not', async () => {
  const directory = temporaryDirectory()
  const unixPath = join(directory, 'datastore.sock')
  writeFileSync(unixPath, 'mine')
  await expect(
    runDatastore({ path: join(directory, 'a/state.db'), listen: { unixPath } }),
  ).rejects.toMatchObject({
    code: 'SOCKET_TAKEN',
    message: `cannot listen on ${unixPath}: it is a file`,
  })
  const used = join(directory, 'used.sock')
  await runDatastore({ path: join(directory, 'b/state.db'), listen: { unixPath: used } })
  await expect(
    runDatastore({ path: join(directory, 'c/state.db'), listen: { unixPath: used } }),
  ).rejects.toMatchObject({ code: 'SOCKET_TAKEN' })
})

test('a taken port is named', async () => {
  const directory = temporaryDirectory()
  const first = await runDatastore({ path: join(directory, 'a/state.db') })
  const port = Number(new URL(first.listening).port)
  await expect(
    runDatastore({ path: join(directory, 'b/state.db'), listen: { host: '127.0.0.1', port } }),
  ).rejects.toMatchObject({ code: 'DATASTORE_LISTEN', fields: { address: `127.0.0.1:${port}` } })
})

test('a schema that is newer is refused, and the file stays as it was', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  await (
    await startDatastore({ path, listen: { host: '127.0.0.1', port: 0 }, workerUrl, log: silentLogger })
  ).stop()
  const database = new Database(path)
  database.pragma('user_version = 999')
  database.close()
  const before = readFileSync(path)
  await expect(runDatastore({ path })).rejects.toMatchObject({
    code: 'DATASTORE_NEWER',
    fields: { schema: 999 },
  })
  expect(readFileSync(path).equals(before)).toBe(true)
})

test('the first schema is migrated, and can be checked before', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const keys = Array.from({ length: 150 }, (_, at) => `k${String(at).padStart(3, '0')}`)
  const listen = { host: '127.0.0.1', port: 0 }
  const first = await startDatastore({ path, listen, workerUrl, log: silentLogger })
  const writer = new RawClient(first.listening)
  for (const key of keys) await writer.unary(put, message({ 1: key, 2: key.repeat(50) }))
  await writer.unary('/etcdserverpb.KV/DeleteRange', message({ 1: 'k149' }))
  await first.stop()
  const database = new Database(path)
  database.exec(
    `ALTER TABLE version DROP COLUMN previous_seq; ALTER TABLE version DROP COLUMN value_bytes;
     PRAGMA user_version = 1`,
  )
  database.close()
  expect(checkDatabase({ path })).toEqual([])

  const client = new RawClient((await runDatastore({ path })).listening)
  const reply = fieldsOf(await client.unary('/etcdserverpb.KV/Range', message({ 1: 'k', 2: 'l' })))
  const values = (reply.get(2) as Buffer[]).map((kv) => String(fieldsOf(kv).get(5)?.[0]))
  expect(values).toEqual(keys.slice(0, -1).map((key) => key.repeat(50)))
  expect(checkDatabase({ path })).toEqual([])
})

test('another program’s database is refused', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const database = new Database(path)
  database.exec('CREATE TABLE kine (id INTEGER PRIMARY KEY)')
  database.close()
  await expect(runDatastore({ path })).rejects.toMatchObject({ code: 'DATASTORE_FOREIGN' })
})

test('a damaged file is reported and left as it is', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  await (
    await startDatastore({ path, listen: { host: '127.0.0.1', port: 0 }, workerUrl, log: silentLogger })
  ).stop()
  const damaged = readFileSync(path)
  damaged.fill(0xaa, 0, 100)
  writeFileSync(path, damaged)
  copyFileSync(path, `${path}-wal`)
  await expect(runDatastore({ path })).rejects.toMatchObject({ code: 'DATASTORE_DAMAGED' })
  expect(readFileSync(path).equals(damaged)).toBe(true)
  expect(readFileSync(`${path}-wal`).equals(damaged)).toBe(true)
})

test('a directory that cannot be made is reported', async () => {
  const file = join(temporaryDirectory(), 'file')
  writeFileSync(file, '')
  await expect(runDatastore({ path: join(file, 'state.db') })).rejects.toMatchObject({
    code: 'DATASTORE_OPEN',
  })
})
