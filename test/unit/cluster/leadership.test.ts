import { expect, test } from 'vitest'
import { alone, type Leadership, runTask } from '../../../src/cluster/leadership.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'

const context = {} as TaskContext
const { signal } = new AbortController()
const task = (leaderOnly: boolean) => {
  const signals: AbortSignal[] = []
  return { leaderOnly, signals, run: async (_: TaskContext, until: AbortSignal) => void signals.push(until) }
}

test.each([true, false])('one server alone does everything (leaderOnly: %s)', async (leaderOnly) => {
  const one = task(leaderOnly)
  await runTask(one, { leadership: alone, context, signal })
  expect(one.signals).toEqual([signal])
})

test('of several servers the leader does what only one may do, as long as it leads', async () => {
  const term = new AbortController()
  const leadership: Leadership = { whileLeading: (run) => run(term.signal) }
  const another: Leadership = { whileLeading: async () => {} }
  const [ofLeader, ofAll] = [task(true), task(false)]
  for (const one of [leadership, another]) {
    await runTask(ofLeader, { leadership: one, context, signal })
    await runTask(ofAll, { leadership: one, context, signal })
  }
  expect(ofLeader.signals).toEqual([term.signal])
  expect(ofAll.signals).toEqual([signal, signal])
})
