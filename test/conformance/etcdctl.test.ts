import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../src/base/logger.ts'
import { type Datastore, startDatastore } from '../../src/datastore/datastore.ts'
import { etcdFileProgram } from './etcd-peer.ts'
import { peer } from './go-suite.ts'

/** etcdctl 3.7 as people use it, against this server. */
const run = promisify(execFile)
let directory: string
let datastore: Datastore

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'k8s-etcdctl-'))
  datastore = await startDatastore({
    path: join(directory, 'state.db'),
    listen: { host: '127.0.0.1', port: 0 },
    workerUrl: new URL('../../src/datastore/worker.ts', import.meta.url),
    log: silentLogger,
    etcdFileProgram,
  })
})

afterAll(async () => {
  await datastore.stop()
  rmSync(directory, { recursive: true, force: true })
})

/** Runs etcdctl; returns what it prints, on both outputs. */
async function etcdctl(...args: string[]): Promise<string> {
  const { stdout, stderr } = await run(peer('etcdctl'), ['--endpoints', datastore.listening, ...args])
  return (stdout + stderr).trim()
}

const patience = { timeout: 20_000 }

/** An etcdctl that goes on until the test ends, and what it has printed so far. */
function running(...args: string[]): { child: ChildProcess; output: () => string } {
  const child = spawn(peer('etcdctl'), ['--endpoints', datastore.listening, ...args])
  onTestFinished(() => void child.kill())
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)))
  return { child, output: () => output }
}

async function withInput(input: string, ...args: string[]): Promise<string> {
  const { child, output } = running(...args)
  child.stdin?.end(input)
  expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0)
  return output().trim()
}

test('put, get, del', async () => {
  expect(await etcdctl('put', 'kv/a', 'one')).toBe('OK')
  expect(await etcdctl('put', 'kv/b', 'two', '--prev-kv')).toBe('OK')
  expect(await etcdctl('put', 'kv/a', 'three', '--prev-kv')).toBe('OK\nkv/a\none')
  expect(await etcdctl('get', 'kv/a')).toBe('kv/a\nthree')
  expect(await etcdctl('get', '--prefix', 'kv/', '--keys-only')).toBe('kv/a\n\nkv/b')
  expect(await etcdctl('get', '--prefix', 'kv/', '--print-value-only', '--order=DESCEND', '--limit=1')).toBe(
    'two',
  )
  expect(await etcdctl('get', '--prefix', 'kv/', '--count-only', '--write-out=fields')).toContain(
    '"Count" : 2',
  )
  expect(await etcdctl('get', 'kv/a', '--rev=2', '--print-value-only')).toBe('one')
  await expect(etcdctl('get', 'kv/a', '--rev=99')).rejects.toThrow('required revision is a future revision')
  expect(await etcdctl('del', 'kv/b', '--prev-kv')).toBe('1\nkv/b\ntwo')
  expect(await etcdctl('del', '--prefix', 'kv/')).toBe('1')
  expect(await etcdctl('get', '--from-key', 'kv/')).toBe('')
})

test('txn', async () => {
  const swap = 'mod("txn/a") = "0"\n\nput txn/a first\nput txn/b first\n\nget txn/a\n\n'
  expect(await withInput(swap, 'txn')).toBe('SUCCESS\n\nOK\n\nOK')
  expect(await withInput(swap, 'txn')).toBe('FAILURE\n\ntxn/a\nfirst')
  expect(await withInput('value("txn/a") = "first"\nver("txn/b") > "0"\n\ndel txn/a\n\n\n', 'txn')).toBe(
    'SUCCESS\n\n1',
  )
})

test('watch', async () => {
  await etcdctl('put', 'watch/a', 'old')
  const watching = running('watch', '--prefix', 'watch/', '--prev-kv', '--rev=1')
  await expect.poll(watching.output, patience).toContain('PUT\nwatch/a\nold\n')
  await etcdctl('put', 'watch/a', 'new')
  await expect.poll(watching.output, patience).toContain('PUT\nwatch/a\nold\nwatch/a\nnew\n')
  await etcdctl('del', 'watch/a')
  await expect.poll(watching.output, patience).toContain('DELETE\nwatch/a\nnew\nwatch/a\n')
})

test('lease', async () => {
  const [, id = ''] =
    /^lease ([0-9a-f]+) granted with TTL\(100s\)$/.exec(await etcdctl('lease', 'grant', '100')) ?? []
  expect(await etcdctl('put', 'lease/a', 'x', `--lease=${id}`)).toBe('OK')
  expect(await etcdctl('lease', 'list')).toContain(id)
  expect(await etcdctl('lease', 'timetolive', id, '--keys')).toMatch(
    new RegExp(
      `^lease ${id} granted with TTL\\(100s\\), remaining\\(\\d+s\\), attached keys\\(\\[lease/a\\]\\)$`,
    ),
  )
  expect(await etcdctl('lease', 'keep-alive', '--once', id)).toBe(`lease ${id} keepalived with TTL(100)`)
  expect(await etcdctl('lease', 'revoke', id)).toBe(`lease ${id} revoked`)
  expect(await etcdctl('get', 'lease/a')).toBe('')
  await expect(etcdctl('lease', 'revoke', id)).rejects.toThrow('requested lease not found')
})

test('compaction and defrag', async () => {
  for (let count = 0; count < 3; count++) await etcdctl('put', 'compact/a', String(count))
  const found = JSON.parse(await etcdctl('get', 'compact/a', '--write-out=json')) as {
    header: { revision: number }
  }
  const { revision } = found.header
  expect(await etcdctl('compaction', String(revision), '--physical')).toBe(`compacted revision ${revision}`)
  await expect(etcdctl('compaction', String(revision))).rejects.toThrow('has been compacted')
  await expect(etcdctl('get', 'compact/a', `--rev=${revision - 1}`)).rejects.toThrow('has been compacted')
  expect(await etcdctl('get', 'compact/a', '--print-value-only')).toBe('2')
  expect(await etcdctl('defrag')).toMatch(/^Finished defragmenting etcd member\[.*\]/)
})

test('endpoint health and status, member list', async () => {
  expect(await etcdctl('endpoint', 'health')).toContain('is healthy: successfully committed proposal')
  const [status] = JSON.parse(await etcdctl('endpoint', 'status', '--write-out=json')) as [
    { Status: { version: string; dbSize: number; leader: bigint; header: { member_id: bigint } } },
  ]
  expect(status.Status.version).toBe('3.7.3')
  expect(status.Status.dbSize).toBeGreaterThan(0)
  expect(status.Status.leader).toBe(status.Status.header.member_id)
  expect(await etcdctl('member', 'list')).toContain(datastore.listening)
  expect(await etcdctl('endpoint', 'status', '--cluster', '--write-out=table')).toContain('3.7.3')
})

test('endpoint hashkv and snapshot save', async () => {
  await etcdctl('put', 'snapshot/a', 'x')
  expect(await etcdctl('endpoint', 'hashkv')).toMatch(/, [1-9]\d*$/)
  const file = join(directory, 'snapshot.db')
  expect(await etcdctl('snapshot', 'save', file)).toContain(`Snapshot saved at ${file}`)
  const { stdout } = await run(peer('etcdutl'), ['snapshot', 'status', file, '--write-out=json'])
  const found = JSON.parse(await etcdctl('get', 'snapshot/a', '--write-out=json')) as {
    header: { revision: number }
  }
  expect(JSON.parse(stdout)).toMatchObject({ revision: found.header.revision, version: '3.7.0' })
})

test('alarm', async () => {
  expect(await etcdctl('alarm', 'list')).toBe('')
  expect(await etcdctl('alarm', 'disarm')).toBe('')
})

test('lock and elect', async () => {
  const holder = running('lock', 'lock')
  await expect.poll(holder.output, patience).toContain('lock/')
  const waiting = running('lock', 'lock')
  holder.child.kill('SIGINT')
  await expect.poll(waiting.output, patience).toContain('lock/')
  const leader = running('elect', 'election', 'me')
  await expect.poll(leader.output, patience).toContain('me')
  await expect.poll(running('elect', '--listen', 'election').output, patience).toContain('me')
})

test('auth and members: what is refused is named', async () => {
  expect(await etcdctl('auth', 'status')).toContain('Authentication Status: false')
  await expect(etcdctl('user', 'add', 'root:secret')).rejects.toThrow('UserAdd is not supported')
  await expect(etcdctl('member', 'add', 'x', '--peer-urls=http://127.0.0.1:1')).rejects.toThrow(
    'MemberAdd is not supported',
  )
})
