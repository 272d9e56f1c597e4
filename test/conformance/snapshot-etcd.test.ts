import { once } from 'node:events'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, credentials } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { runDatastore } from '../unit/datastore/support.ts'
import { etcdFileProgram, etcdctl, etcdutl, runEtcd, temporaryDirectory } from './etcd-peer.ts'
import { compactedRevision, states, writeHistory } from './history.ts'

test('etcd goes on from a snapshot that etcdctl saves: the same keys, revisions, versions and leases', async () => {
  const directory = temporaryDirectory()
  const { listening } = await runDatastore({ path: join(directory, 'state.db'), etcdFileProgram })
  const ours = etcdctl(listening)
  await writeHistory(listening)
  const file = join(directory, 'snapshot.db')
  await ours('snapshot', 'save', file)

  const status = JSON.parse(await etcdutl('snapshot', 'status', file, '-w', 'json')) as Record<
    string,
    unknown
  >
  const expected = await states(ours)
  expect(status).toMatchObject({ revision: expected.revision, version: '3.7.0' })

  const dataDir = join(directory, 'etcd')
  await etcdutl('snapshot', 'restore', file, `--data-dir=${dataDir}`)
  const { endpoint } = await runEtcd(dataDir)
  const theirs = etcdctl(endpoint)
  expect(await states(theirs)).toEqual(expected)
  await expect(theirs('get', 'a', `--rev=${compactedRevision - 1}`)).rejects.toThrow(/has been compacted/)
  await theirs('put', 'a', 'goes on')
  const { header } = JSON.parse(await theirs('get', 'a', '-w', 'json')) as { header: { revision: number } }
  expect(header.revision).toBe(expected.revision + 1)
})

test('etcdutl refuses a snapshot of which a byte has changed', async () => {
  const directory = temporaryDirectory()
  const { listening } = await runDatastore({ path: join(directory, 'state.db'), etcdFileProgram })
  const ours = etcdctl(listening)
  await ours('put', 'a', '1')
  const file = join(directory, 'snapshot.db')
  await ours('snapshot', 'save', file)
  const bytes = readFileSync(file)
  bytes[5000] = (bytes[5000] as number) ^ 1
  writeFileSync(file, bytes)
  await expect(etcdutl('snapshot', 'restore', file, `--data-dir=${directory}/etcd`)).rejects.toThrow(/sha256/)
})

test('clients that go away leave nothing behind, and hold nobody up', async () => {
  const directory = temporaryDirectory()
  const path = join(directory, 'state.db')
  const { listening } = await runDatastore({ path, etcdFileProgram })
  const ours = etcdctl(listening)
  for (let at = 0; at < 10; at++) await ours('put', `key/${at}`, 'x'.repeat(100_000))
  const bytes = (buffer: Buffer): Buffer => buffer
  const client = new Client(listening.replace('http://', ''), credentials.createInsecure())
  for (const afterMs of [0, 1, 30]) {
    const method = '/etcdserverpb.Maintenance/Snapshot'
    const call = client.makeServerStreamRequest(method, bytes, bytes, Buffer.alloc(0))
    const ended = once(call, 'error')
    await sleep(afterMs)
    call.cancel()
    await ended
  }
  client.close()
  // They take turns, so those are over when this one comes.
  await ours('snapshot', 'save', join(directory, 'snapshot.db'))
  await expect.poll(() => readdirSync(`${path}.export`)).toEqual([])
})

test('without the program a snapshot is refused in words', async () => {
  const directory = temporaryDirectory()
  const { listening } = await runDatastore({ path: join(directory, 'state.db') })
  const saved = etcdctl(listening)('snapshot', 'save', join(directory, 'snapshot.db'))
  await expect(saved).rejects.toThrow(/snapshots need the program etcd-file/)
})
