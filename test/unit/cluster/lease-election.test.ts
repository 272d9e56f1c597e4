import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { type HeldLease, LeaseElection, type LeaseStore } from '../../../src/cluster/lease-election.ts'
import { until } from '../supervisor/support.ts'

const timing = { leaseMs: 300, renewLimitMs: 200, retryMs: 10, firstRetryMs: 5 }

/** The API, which refuses what was written on another state than the newest. */
class Api implements LeaseStore {
  lease: HeldLease | undefined
  isAway = false
  #version = 0

  looks = 0

  async get(): Promise<HeldLease | undefined> {
    this.#answer()
    this.looks++
    return this.lease
  }

  async create(lease: Omit<HeldLease, 'version'>): Promise<HeldLease> {
    this.#answer()
    if (this.lease !== undefined) throw new Error('409')
    return this.#write(lease)
  }

  async replace(lease: HeldLease): Promise<HeldLease> {
    this.#answer()
    if (this.lease?.version !== lease.version) throw new Error('409')
    return this.#write(lease)
  }

  #write(lease: Omit<HeldLease, 'version'>): HeldLease {
    this.lease = { ...lease, version: String(++this.#version) }
    return this.lease
  }

  #answer(): void {
    if (this.isAway) throw new Error('ECONNREFUSED')
  }
}

/** A server with one task, which runs until it is told to end. */
function server(store: LeaseStore, name: string) {
  const election = new LeaseElection({ store, name, log: silentLogger, timing })
  const end = new AbortController()
  const state = { terms: 0, isRunning: false }
  const run = async (signal: AbortSignal) => {
    state.terms++
    state.isRunning = true
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    state.isRunning = false
  }
  const over = election.whileLeading(run, end.signal)
  const stop = async () => {
    end.abort()
    await over
  }
  return { state, stop, election, end }
}

test('one of several leads, and a clean stop hands the lead over at once', async () => {
  const api = new Api()
  const one = server(api, 'one')
  await until(() => one.state.isRunning)
  const two = server(api, 'two')
  await sleep(50)
  expect([two.state.isRunning, api.lease]).toMatchObject([false, { holder: 'one', transitions: 0 }])
  await one.stop()
  expect(one.state).toEqual({ terms: 1, isRunning: false })
  expect(['', 'two']).toContain(api.lease?.holder)
  await until(() => two.state.isRunning)
  expect(api.lease).toMatchObject({ holder: 'two', transitions: 1 })
  await two.stop()
  expect(api.lease?.holder).toBe('')
})

test('who died without a word is succeeded after the time of the lease, and no earlier', async () => {
  const api = new Api()
  api.lease = { holder: 'dead', leaseMs: 300, transitions: 3, version: 'x' }
  const one = server(api, 'one')
  await until(() => one.state.isRunning)
  // It was looked at again and again before it was taken.
  expect(api.looks).toBeGreaterThan(2)
  expect(api.lease).toMatchObject({ holder: 'one', transitions: 4 })
  await one.stop()
})

test('who held it before a restart has it at once', async () => {
  const api = new Api()
  api.lease = { holder: 'one', leaseMs: 3_600_000, transitions: 3, version: 'x' }
  const one = server(api, 'one')
  await until(() => one.state.isRunning)
  expect(api.lease).toMatchObject({ holder: 'one', transitions: 3 })
  await one.stop()
})

test('the lead ends when it cannot be renewed, before another may have it, and comes back', async () => {
  const api = new Api()
  const one = server(api, 'one')
  await until(() => one.state.isRunning)
  api.isAway = true
  await until(() => !one.state.isRunning)
  api.isAway = false
  await until(() => one.state.isRunning)
  expect(one.state.terms).toBe(2)
  await one.stop()
})

test('the lead ends as soon as another is seen to have it', async () => {
  const api = new Api()
  const one = server(api, 'one')
  await until(() => one.state.isRunning)
  api.lease = { holder: 'two', leaseMs: 3_600_000, transitions: 1, version: 'other' }
  await until(() => !one.state.isRunning)
  await one.stop()
  expect(api.lease).toMatchObject({ holder: 'two' })
})

test('tasks share it: each ends by itself, and a failure of one is its own', async () => {
  const api = new Api()
  const { state, stop, election, end } = server(api, 'one')
  await until(() => state.isRunning)
  await election.whileLeading(async () => {}, end.signal)
  await expect(
    election.whileLeading(async () => {
      throw new Error('the disk is full')
    }, end.signal),
  ).rejects.toThrow('the disk is full')
  expect([state.isRunning, api.lease?.holder]).toEqual([true, 'one'])
  await stop()
})
