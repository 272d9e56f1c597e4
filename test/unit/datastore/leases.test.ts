import { join } from 'node:path'
import Database from 'better-sqlite3'
import { expect, onTestFinished, test } from 'vitest'
import type { LoggedLease } from '../../../src/datastore/log/log.ts'
import { KeyIndex } from '../../../src/datastore/mvcc/key-index.ts'
import { type Lease, Lessor } from '../../../src/datastore/mvcc/lessor.ts'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from './support.ts'

const ttl = '/etcdserverpb.Lease/LeaseTimeToLive'

test('a start grants leases anew, however long nothing ran and wherever the clock went', async () => {
  const path = join(temporaryDirectory(), 'db/state.db')
  const first = await runDatastore({ path })
  const client = new RawClient(first.listening)
  await client.unary('/etcdserverpb.Lease/LeaseGrant', message({ 1: 1000, 2: -5n }))
  await client.unary('/etcdserverpb.KV/Put', message({ 1: 'leased', 2: 'x', 3: -5n }))
  await first.stop()
  const database = new Database(path)
  // As if the machine had been off, or its clock behind, for years.
  database.prepare('UPDATE lease SET deadline_ms = 0').run()
  database.close()

  const second = new RawClient((await runDatastore({ path })).listening)
  const fields = fieldsOf(await second.unary(ttl, message({ 1: -5n, 2: 1 })))
  const [remaining = 0n] = fields.get(3) as bigint[]
  expect(remaining).toBeGreaterThan(900n)
  expect(fields.get(4)).toEqual([1000n])
  expect(fields.get(5)).toEqual([Buffer.from('leased')])
  const renewal = second.stream('/etcdserverpb.Lease/LeaseKeepAlive')
  onTestFinished(() => renewal.cancel())
  renewal.on('error', () => undefined)
  renewal.write(message({ 1: -5n }))
  const renewed = await new Promise<Buffer>((resolve) => renewal.on('data', resolve))
  expect(fieldsOf(renewed).get(3)).toEqual([1000n])
})

/** A lessor over a log of its own, on a clock that only `clock.nowMs` moves. */
function onClock(logged: LoggedLease[] = []) {
  const clock = { nowMs: 50_000 }
  const log = {
    readLeases: () => [...logged],
    appendLease: (lease: LoggedLease) => void logged.push(lease),
    appendLeaseEnd: (id: bigint) => void logged.splice(logged.findIndex((lease) => lease.id === id)),
  }
  const expired: Lease[] = []
  const lessor = new Lessor({
    log,
    store: { index: new KeyIndex() },
    onExpired: (leases) => void expired.push(...leases),
    now: () => clock.nowMs,
  })
  onTestFinished(() => lessor.stop())
  return { clock, lessor, logged }
}

test('a lease ends when its time is over unless it is renewed', () => {
  const { clock, lessor } = onClock()
  const lease = lessor.grant({ id: 7n, ttlSeconds: 10 })
  clock.nowMs += 9000
  expect([lessor.isExpired(lease), lessor.remainingMs(lease)]).toEqual([false, 1000])
  lessor.renew(lease)
  clock.nowMs += 9000
  expect(lessor.isExpired(lease)).toBe(false)
  clock.nowMs += 1000
  expect(lessor.isExpired(lease)).toBe(true)
})

test('another start has all of the time again', () => {
  const { clock, lessor, logged } = onClock()
  lessor.grant({ id: 7n, ttlSeconds: 10 })
  clock.nowMs += 9000
  const next = onClock(logged).lessor
  expect(next.list().map((lease) => [lease.id, next.remainingMs(lease)])).toEqual([[7n, 10_000]])
})

test('after a commit that was lost, leases go on with what they had left, without those that were lost', () => {
  const { clock, lessor, logged } = onClock()
  lessor.grant({ id: 7n, ttlSeconds: 10 })
  clock.nowMs += 4000
  lessor.grant({ id: 8n, ttlSeconds: 10 })
  logged.pop()
  lessor.reload()
  expect(lessor.list().map((lease) => [lease.id, lessor.remainingMs(lease)])).toEqual([[7n, 6000]])
})
