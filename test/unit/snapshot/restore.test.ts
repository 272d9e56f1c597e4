import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readFacts } from '../../../src/config/facts.ts'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { preparePki } from '../../../src/pki/pki.ts'
import { finishReplacement } from '../../../src/snapshot/replacement.ts'
import { restoreSnapshot, revisionBump } from '../../../src/snapshot/restore.ts'
import { openSnapshotFile } from '../../../src/snapshot/file.ts'
import { fieldsOf, message, temporaryDirectory } from '../datastore/support.ts'
import { dataDirectory, methods, save, serve, writeKeys } from './support.ts'

const secret = 'a secret of many characters'

function secretFile(): string {
  const path = join(temporaryDirectory(), 'secret')
  writeFileSync(path, `${secret}\n`)
  return path
}

function restore(paths: Paths, file: string, given?: string) {
  return restoreSnapshot({ paths, file, secret: given, nativeBinding: undefined })
}

describe('a restore', () => {
  test('goes back to the snapshot, at a revision that nobody has seen, and keeps what was there', async () => {
    const paths = dataDirectory()
    writeKeys(paths, 'first')
    const before = await serve(paths)
    await before.put('a', 'old')
    const { path } = await save(paths)
    await before.put('a', 'new')
    await before.put('b', 'new')
    await before.datastore.stop()
    writeKeys(paths, 'second')

    const restored = await restore(paths, path)
    expect(restored).toMatchObject({ snapshotRevision: 2, revision: 4 + revisionBump })
    const after = await serve(paths)
    expect(await after.all()).toEqual({ revision: restored.revision, values: { a: 'old' } })
    // All that clients may have seen is compacted: a watch from there has to start anew.
    const past = after.client.unary(methods.range, message({ 1: 'a', 4: 4 }))
    await expect(past).rejects.toThrow(/has been compacted/)
    await after.put('c', 'later')
    expect((await after.all()).revision).toBe(restored.revision + 1)
    await after.datastore.stop()

    expect(readFileSync(join(paths.pkiDir, 'service-account.key'), 'utf8')).toBe('first')
    expect(statSync(join(paths.pkiDir, 'service-account.key')).mode & 0o777).toBe(0o600)
    const kept = restored.replaced ?? ''
    expect(readFileSync(join(kept, 'pki', 'service-account.key'), 'utf8')).toBe('second')
    renameSync(join(kept, 'db', 'state.db'), paths.database)
    const former = await serve(paths)
    expect((await former.all()).values).toEqual({ a: 'new', b: 'new' })
  })

  test('starts a cluster on another machine', async () => {
    const [from, to] = [dataDirectory(), dataDirectory()]
    writeKeys(from, 'first')
    const before = await serve(from)
    await before.put('a', '1')
    const { path, header } = await save(from, { secretFile: secretFile() })
    expect(header.sealed).not.toBeNull()
    expect(readFileSync(path).includes('first')).toBe(false)
    await expect(restore(to, path)).rejects.toThrow(/it is sealed/)
    await expect(restore(to, path, 'not that secret, but another')).rejects.toThrow(
      /the secret is another one/,
    )
    expect(readdirSync(to.dataDir).toSorted()).toEqual(['db', 'pki'])
    await restore(to, path, secret)
    const after = await serve(to)
    expect((await after.all()).values).toEqual({ a: '1' })
    expect(readFileSync(join(to.pkiDir, 'encryption-config.yaml'), 'utf8')).toBe('first')
  })

  test('brings the keys that a daemon goes on with: certificates of the same authorities', async () => {
    const [from, to] = [dataDirectory(), dataDirectory()]
    const identity = {
      ...{ nodeName: 'one', nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1', bindAddress: '0.0.0.0' },
      ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
    }
    const first = await preparePki({ dir: from.pkiDir, ...identity })
    await preparePki({ dir: to.pkiDir, ...identity })
    const { put } = await serve(from)
    await put('a', '1')
    const { path } = await save(from)
    await restore(to, path)
    // None of the other cluster's certificates is left, and all are issued anew.
    expect(existsSync(join(to.pkiDir, 'apiserver.crt'))).toBe(false)
    const second = await preparePki({ dir: to.pkiDir, ...identity })
    expect(second.renewed.map(({ name }) => name)).toContain('apiserver')
    for (const file of ['server-ca.crt', 'client-ca.key', 'encryption-config.yaml', 'service-account.pub'])
      expect(readFileSync(join(second.dir, file), 'utf8')).toBe(readFileSync(join(first.dir, file), 'utf8'))
  })

  test('brings what was fixed for the cluster, and leaves the former name of the node behind', async () => {
    const [from, to] = [dataDirectory(), dataDirectory()]
    for (const paths of [from, to]) writeKeys(paths, 'first')
    const { put } = await serve(from)
    await put('a', '1')
    const older = await save(from, { name: 'older' })
    writeFileSync(from.clusterFacts, '{"settings":{"cluster-domain":"from.test"}}')
    const { path } = await save(from)

    writeFileSync(to.clusterFacts, '{"settings":{"cluster-domain":"to.test"}}')
    writeFileSync(to.nodeRecord, '{"settings":{"node-name":"to"}}')
    const { replaced } = await restore(to, path)
    expect(readFacts(to.dataDir)).toMatchObject({ cluster: { 'cluster-domain': 'from.test' }, node: {} })
    expect(statSync(to.clusterFacts).mode & 0o777).toBe(0o600)
    const kept = pathsOf({ dataDir: replaced ?? '' })
    expect(readFacts(kept.dataDir)).toMatchObject({
      cluster: { 'cluster-domain': 'to.test' },
      node: { 'node-name': 'to' },
    })
    // One that was taken before there were such facts says nothing, and so does what is there then.
    await restore(to, older.path)
    expect(readFacts(to.dataDir).cluster).toEqual({})
  })

  test('of a datastore alone leaves it one', async () => {
    const [from, to] = [dataDirectory(), dataDirectory()]
    for (const { pkiDir } of [from, to]) rmdirSync(pkiDir)
    const { put } = await serve(from)
    await put('a', '1')
    const { path } = await save(from)
    writeFileSync(to.nodeRecord, '{"settings":{"role":"datastore","node-name":"to"},"address":"192.0.2.1"}')
    await restore(to, path)
    expect(readFacts(to.dataDir).node).toEqual({ role: 'datastore' })
    expect(readFileSync(to.nodeRecord, 'utf8')).not.toContain('192.0.2.1')
  })

  test('grants leases anew, with their keys', async () => {
    const paths = dataDirectory()
    const before = await serve(paths)
    await before.client.unary(methods.grant, message({ 1: 1000, 2: 7 }))
    await before.put('a', '1', 7)
    const { path } = await save(paths)
    await before.datastore.stop()
    await restore(paths, path)
    const after = await serve(paths)
    const ttl = fieldsOf(await after.client.unary(methods.ttl, message({ 1: 7, 2: 1 })))
    expect(Number(ttl.get(3)?.[0])).toBeGreaterThan(900)
    expect(ttl.get(5)?.map(String)).toEqual(['a'])
  })

  test('is refused while a datastore runs', async () => {
    const paths = dataDirectory()
    const { put } = await serve(paths)
    await put('a', '1')
    const { path } = await save(paths)
    await expect(restore(paths, path)).rejects.toThrow(`process ${process.pid} has it`)
  })

  test.each([
    ['a changed byte', (bytes: Buffer) => (bytes[bytes.length >> 1]! ^= 1)],
    ['a changed digest', (bytes: Buffer) => (bytes[bytes.length - 1]! ^= 1)],
  ])('with %s in its file changes nothing', async (_, damage) => {
    const paths = dataDirectory()
    const { put, datastore } = await serve(paths)
    await put('a', '1')
    const { path } = await save(paths)
    await put('a', '2')
    await datastore.stop()
    const bytes = readFileSync(path)
    damage(bytes)
    writeFileSync(path, bytes)
    await expect(restore(paths, path)).rejects.toThrow(/its digest is not that of its content/)
    expect((await (await serve(paths)).all()).values).toEqual({ a: '2' })
  })

  test.each([
    ['it is no snapshot', (path: string) => writeFileSync(path, 'x'.repeat(10_000))],
    ['it is no snapshot', (path: string) => writeFileSync(path, '')],
    ['its end is missing', (path: string) => writeFileSync(path, readFileSync(path).subarray(0, -100))],
    ['it is no plain file', (path: string) => (renameSync(path, `${path}.x`), mkdirSync(path))],
  ])('of a bad file says: %s', async (reason, spoil) => {
    const paths = dataDirectory()
    const { put, datastore } = await serve(paths)
    await put('a', '1')
    const { path } = await save(paths)
    await datastore.stop()
    spoil(path)
    await expect(restore(paths, path)).rejects.toThrow(reason)
    expect(existsSync(join(paths.dataDir, 'restore.preparing'))).toBe(false)
  })
})

test('a snapshot is one moment, while writers go on and wait for nothing', async () => {
  const paths = dataDirectory()
  const { client, datastore, all } = await serve(paths)
  let isDone = false
  let written = 0
  const write = async (writer: number): Promise<void> => {
    const put = (key: string, value: string) => message({ 2: message({ 2: message({ 1: key, 2: value }) }) })
    for (let at = 0; !isDone; at++) {
      const pair = ['x', 'y'].map((half) => put(`${writer}/${half}`, `${at}`))
      await client.unary('/etcdserverpb.KV/Txn', Buffer.concat(pair))
      written++
    }
  }
  const writers = [0, 1, 2, 3].map(write)
  const taken = await save(paths)
  isDone = true
  await Promise.all(writers)
  const end = (await all()).revision
  expect(end).toBe(written + 1)
  await datastore.stop()
  expect(taken.header.revision).toBeLessThanOrEqual(end)

  await restore(paths, taken.path)
  const { values } = await (await serve(paths)).all()
  // Each transaction wrote both of its keys, and counts once.
  let transactions = 0
  for (const writer of [0, 1, 2, 3]) {
    expect(values[`${writer}/x`]).toBe(values[`${writer}/y`])
    if (values[`${writer}/x`] !== undefined) transactions += Number(values[`${writer}/x`]) + 1
  }
  expect(transactions).toBe(taken.header.revision - 1)
})

describe('a restore that a crash interrupts', () => {
  /** What is decided, as `restoreSnapshot` leaves it when it dies at once after that. */
  async function decided() {
    const paths = dataDirectory()
    writeKeys(paths, 'first')
    const before = await serve(paths)
    await before.put('a', 'old')
    await save(paths)
    await before.put('a', 'new')
    await before.datastore.stop()
    const [file = ''] = readdirSync(join(paths.dataDir, 'snapshots'))
    // The very files of a restore, taken from one on another directory.
    const other = dataDirectory()
    await restore(other, join(paths.dataDir, 'snapshots', file))
    const fresh = join(paths.dataDir, 'restore', 'new')
    mkdirSync(join(fresh, 'db'), { recursive: true })
    copyFileSync(other.database, join(fresh, 'db', 'state.db'))
    renameSync(other.pkiDir, join(fresh, 'pki'))
    writeKeys(paths, 'second')
    return { paths, pending: join(paths.dataDir, 'restore') }
  }

  /** The steps that may have been done, in their order. */
  const steps: readonly ((given: { paths: Paths; pending: string }) => void)[] = [
    ({ pending }) => mkdirSync(join(pending, 'old', 'db'), { recursive: true }),
    ({ paths, pending }) => renameSync(paths.database, join(pending, 'old', 'db', 'state.db')),
    ({ paths, pending }) => renameSync(join(pending, 'new', 'db', 'state.db'), paths.database),
    ({ paths, pending }) => renameSync(paths.pkiDir, join(pending, 'old', 'pki')),
    ({ paths, pending }) => renameSync(join(pending, 'new', 'pki'), paths.pkiDir),
  ]

  test.each(steps.map((_, count) => [count]).concat([[steps.length]]))(
    'after %i steps is finished',
    async (count) => {
      const given = await decided()
      for (const step of steps.slice(0, count)) step(given)
      expect(await finishReplacement(given.paths, undefined)).toBe('restore')
      expect(await finishReplacement(given.paths, undefined)).toBeUndefined()
      expect((await (await serve(given.paths)).all()).values).toEqual({ a: 'old' })
      expect(readFileSync(join(given.paths.pkiDir, 'service-account.key'), 'utf8')).toBe('first')
      expect(readdirSync(given.paths.dataDir).toSorted()).toEqual(['db', 'pki', 'replaced', 'snapshots'])
      const [kept = ''] = readdirSync(join(given.paths.dataDir, 'replaced'))
      expect(readdirSync(join(given.paths.dataDir, 'replaced', kept)).toSorted()).toEqual(['db', 'pki'])
    },
  )

  test('before it was decided leaves what was there', async () => {
    const { paths, pending } = await decided()
    renameSync(pending, `${pending}.preparing`)
    expect(await finishReplacement(paths, undefined)).toBeUndefined()
    expect((await (await serve(paths)).all()).values).toEqual({ a: 'new' })
  })
})

test('a snapshot names what it was taken of, for those who may not open it', async () => {
  const paths = dataDirectory()
  const { put } = await serve(paths)
  await put('a', '1')
  await put('b', '1')
  const { path } = await save(paths, { secretFile: secretFile() })
  expect(path).toMatch(/test-\d{8}T\d{6}Z\.tar\.zst\.sealed$/)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect((await openSnapshotFile(path)).header).toMatchObject({ revision: 3, keys: 2, version: 'v0' })
})
