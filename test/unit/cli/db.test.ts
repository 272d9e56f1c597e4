import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import type { DatabaseReport } from '../../../src/datastore/log/inspect.ts'
import { RawClient, message, runDatastore, temporaryDirectory } from '../datastore/support.ts'
import { replaceFile, testAuthority, tlsFilesIn } from '../datastore/test-certificates.ts'
import { datastorePayload } from './payload.ts'
import { runCli } from './run-cli.ts'

const putMethod = '/etcdserverpb.KV/Put'

/** A data directory whose datastore has three keys, one of them deleted, and a lease; revision 7. */
async function filled() {
  const dataDir = temporaryDirectory()
  const path = join(dataDir, 'db/state.db')
  const datastore = await runDatastore({ path })
  const client = new RawClient(datastore.listening)
  await client.unary('/etcdserverpb.Lease/LeaseGrant', message({ 1: 1000, 2: 7 }))
  for (const value of ['one', 'two', 'three']) await client.unary(putMethod, message({ 1: 'a', 2: value }))
  await client.unary(putMethod, message({ 1: 'b', 2: 'leased', 3: 7 }))
  await client.unary(putMethod, message({ 1: 'c', 2: 'x' }))
  await client.unary('/etcdserverpb.KV/DeleteRange', message({ 1: 'c' }))
  return { dataDir, path, datastore }
}

async function db(command: string, dataDir: string, ...flags: string[]) {
  return runCli({
    args: ['db', command, `--data-dir=${dataDir}`, ...flags],
    environment: { K8S_PAYLOAD_DIR: datastorePayload() },
  })
}

async function status(dataDir: string): Promise<DatabaseReport> {
  const { code, stdout } = await db('status', dataDir, '-o', 'json')
  expect(code).toBe(0)
  return JSON.parse(stdout) as DatabaseReport
}

describe('k8s db status', () => {
  test('tells what is there while a datastore serves it, and changes nothing', async () => {
    const { dataDir, path, datastore } = await filled()
    expect(await status(dataDir)).toMatchObject({
      path,
      schemaVersion: 3,
      ownerPid: process.pid,
      revision: 7,
      compactedRevision: null,
      keys: 2,
      versions: 6,
      leases: 1,
      freeBytes: 0,
      alarms: [],
    })
    await datastore.stop()
    const { code, stdout } = await db('status', dataDir)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^in use by +nobody$/m)
    expect(stdout).toMatch(/^keys +2$/m)
  })

  test('refuses a directory without a database, and makes none', async () => {
    const dataDir = temporaryDirectory()
    const { code, stderr } = await db('status', dataDir)
    expect(code).toBe(1)
    expect(stderr).toBe(
      'k8s: cannot open datastore: there is none. Name the data directory that has db/state.db in it.\n',
    )
  })
})

describe('k8s db compact', () => {
  test('compacts a file that nobody has', async () => {
    const { dataDir, datastore } = await filled()
    await datastore.stop()
    expect(await db('compact', dataDir)).toEqual({
      code: 0,
      stdout: 'Compacted at revision 7.\n',
      stderr: '',
    })
    // The newest states, and the tombstone at the compacted revision.
    expect(await status(dataDir)).toMatchObject({ compactedRevision: 7, revision: 7, keys: 2, versions: 3 })
    expect((await db('compact', dataDir)).code).toBe(0)
  })

  test('asks a datastore that serves', async () => {
    const { dataDir, datastore } = await filled()
    const endpoint = `--endpoint=${datastore.listening}`
    expect((await db('compact', dataDir, '--revision=4', endpoint)).stdout).toBe('Compacted at revision 4.\n')
    expect(await status(dataDir)).toMatchObject({ compactedRevision: 4, versions: 4 })
    const again = await db('compact', dataDir, '--revision=4', endpoint)
    expect(again.code).toBe(1)
    expect(again.stderr).toContain('required revision has been compacted')
  })

  test('asks a datastore that wants certificates', async () => {
    const directory = temporaryDirectory()
    const files = tlsFilesIn(directory)
    const authority = testAuthority()
    const server = authority.issue({ usage: 'server', names: ['localhost'] })
    const client = authority.issue({ usage: 'client' })
    const [cert, key] = [join(directory, 'client.crt'), join(directory, 'client.key')]
    replaceFile(files.certFile, server.cert)
    replaceFile(files.keyFile, server.key)
    replaceFile(files.trustedCaFile, authority.cert)
    replaceFile(cert, client.cert)
    replaceFile(key, client.key)
    const listen = { host: '127.0.0.1', port: 0, tls: files }
    const { listening } = await runDatastore({ path: join(directory, 'db/state.db'), listen })
    const endpoint = `--endpoint=https://localhost:${new URL(listening).port}`
    const trusted = `--cacert=${files.trustedCaFile}`
    const all = [endpoint, trusted, `--cert=${cert}`, `--key=${key}`]
    expect((await db('disarm', directory, ...all)).stdout).toBe('There is no alarm.\n')
    expect((await db('compact', directory, ...all)).stdout).toBe('Compacted at revision 1.\n')
    const { code, stderr } = await db('disarm', directory, endpoint, trusted)
    expect(code).toBe(1)
    expect(stderr).toContain('cannot call Alarm')
  })

  test('names who has the database when it is not where it is asked', async () => {
    const { dataDir } = await filled()
    const { code, stderr } = await db('compact', dataDir)
    expect(code).toBe(1)
    expect(stderr).toContain(`cannot compact: process ${process.pid} has the database`)
    expect(stderr).toContain('Name with --endpoint where it serves, or stop it.')
  })
})

describe('k8s db disarm', () => {
  /** Raises NOSPACE as a client. */
  const raise = (listening: string) =>
    new RawClient(listening).unary('/etcdserverpb.Maintenance/Alarm', message({ 1: 1, 3: 1 }))

  test('lowers the alarm of a datastore that serves', async () => {
    const { dataDir, datastore } = await filled()
    const endpoint = `--endpoint=${datastore.listening}`
    expect((await db('disarm', dataDir, endpoint)).stdout).toBe('There is no alarm.\n')
    await raise(datastore.listening)
    expect(datastore.trouble()).toContain('k8s db disarm')
    expect(await status(dataDir)).toMatchObject({ alarms: ['NOSPACE'] })
    expect((await db('disarm', dataDir, endpoint)).stdout).toBe('Lowered the alarm NOSPACE.\n')
    expect(await status(dataDir)).toMatchObject({ alarms: [] })
    expect(datastore.trouble()).toBeUndefined()
  })

  test('lowers that of a file which nobody has', async () => {
    const { dataDir, datastore } = await filled()
    await raise(datastore.listening)
    await datastore.stop()
    expect((await db('disarm', dataDir)).stdout).toBe('Lowered the alarm NOSPACE.\n')
    expect(await status(dataDir)).toMatchObject({ alarms: [] })
  })

  test('names who has the database when it is not where it is asked', async () => {
    const { dataDir } = await filled()
    const { code, stderr } = await db('disarm', dataDir)
    expect(code).toBe(1)
    expect(stderr).toContain(`cannot disarm: process ${process.pid} has the database`)
  })
})

describe('k8s db check', () => {
  test('finds nothing wrong with a sound database, compacted or not, served or not', async () => {
    const { dataDir, path, datastore } = await filled()
    expect(await db('check', dataDir)).toEqual({ code: 0, stdout: `${path} is sound.\n`, stderr: '' })
    await db('compact', dataDir, '--revision=6', `--endpoint=${datastore.listening}`)
    expect((await db('check', dataDir)).code).toBe(0)
    await datastore.stop()
    expect((await db('check', dataDir)).code).toBe(0)
  })

  test.each([
    ['DELETE FROM value WHERE seq = 3', 'version 3 has no value'],
    ["INSERT INTO value VALUES (6, 'x')", 'version 6 has a value, but is a tombstone or gone'],
    [
      "UPDATE value SET value = 'much longer than it was' WHERE seq = 3",
      'version 3 has a value of another length than it says',
    ],
    ['UPDATE version SET version = 9 WHERE seq = 3', 'it says version 9, created at 2, where 3'],
    ['UPDATE version SET revision = 2 WHERE seq = 3', 'its revision 2 comes after 3'],
    ['DELETE FROM version WHERE seq = 2', 'it says version 3, created at 2, where 2, created at 2, follows'],
    ['UPDATE version SET create_revision = 99 WHERE seq = 5', 'its create revision 99 is not within'],
    ['DELETE FROM version WHERE seq = 1; DELETE FROM value WHERE seq = 1', 'the state before it is missing'],
    ['DELETE FROM lease', 'key "b": its lease 7 does not exist'],
  ])('finds what is wrong after %s', async (damage, finding) => {
    const { dataDir, path, datastore } = await filled()
    await datastore.stop()
    const database = new Database(path)
    database.exec(damage)
    database.close()
    const { code, stdout } = await db('check', dataDir)
    expect(code).toBe(1)
    expect(stdout).toContain(finding)
    expect(stdout).toContain('restore a snapshot')
  })

  test('finds a page that is overwritten', async () => {
    const { path, datastore } = await filled()
    await datastore.stop()
    const bytes = readFileSync(path)
    // The third page: a table's root, behind the schema and the first page of the pointer map.
    bytes.fill(0x5a, 2 * 4096, 3 * 4096)
    writeFileSync(path, bytes)
    const copy = join(temporaryDirectory(), 'db')
    mkdirSync(copy)
    copyFileSync(path, join(copy, 'state.db'))
    const { code, stdout } = await db('check', join(copy, '..'))
    expect(code).toBe(1)
    expect(stdout).toContain('is damaged')
    expect(readFileSync(path).equals(bytes)).toBe(true)
  })
})

test('db alone, and what it does not have, is refused', async () => {
  expect(await runCli({ args: ['db'] })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining(
      'cannot run db alone: there is db status, db compact, db disarm, db check',
    ),
  })
  expect(await runCli({ args: ['db', 'statsu'] })).toMatchObject({
    code: 2,
    stderr: 'k8s: cannot run db statsu: there is no such command; did you mean db status?\n',
  })
  expect(await runCli({ args: ['db', 'status', 'now'] })).toMatchObject({ code: 2 })
  expect((await runCli({ args: ['help', 'db'] })).stdout).toContain('k8s db compact')
})
