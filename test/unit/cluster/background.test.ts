import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { TaskGroup } from '../../../src/cluster/background.ts'

test('a task that fails is begun anew until it is done', async () => {
  const { signal } = new AbortController()
  const group = new TaskGroup({ log: silentLogger, signal, retryMs: 1 })
  const tries: number[] = []
  const told: (string | undefined)[] = []
  const done = Promise.withResolvers<void>()
  const task = async () => {
    tries.push(tries.length)
    if (tries.length < 3) throw new Error('no space left')
    done.resolve()
  }
  group.begin('write', task, (reason) => told.push(reason))
  await done.promise
  await group.settled(60_000)
  expect(tries).toEqual([0, 1, 2])
  // For the status: only what waits for its next try is in trouble.
  expect(told).toEqual(['cannot write: no space left', undefined, 'cannot write: no space left', undefined])
})

test('and no longer than the group', async () => {
  const end = new AbortController()
  const group = new TaskGroup({ log: silentLogger, signal: end.signal, retryMs: 3_600_000 })
  const failed = Promise.withResolvers<void>()
  let tries = 0
  group.begin('write', () => {
    tries += 1
    failed.resolve()
    return Promise.reject(new Error('no space left'))
  })
  await failed.promise
  end.abort()
  await group.settled(60_000)
  expect(tries).toBe(1)
})
