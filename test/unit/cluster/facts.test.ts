import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { facts } from '../../../src/cluster/tasks/facts.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'
import { readFacts, readNodeRecord, updateNodeRecord } from '../../../src/config/facts.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { testHost } from '../config/given.ts'
import { temporaryDirectory } from '../datastore/support.ts'

async function context(whenReady: TaskContext['whenReady']) {
  const dataDir = temporaryDirectory()
  const flags = [{ name: 'data-dir', text: dataDir }]
  const config = await loadConfig({ flags, environment: {}, host: testHost })
  return { dataDir, context: { config, paths: pathsOf(config), storage: {}, whenReady } as TaskContext }
}

test('what is fixed is written when the API server is there for the first time', async () => {
  const ready = Promise.withResolvers<void>()
  const asked: string[] = []
  const given = await context((capability) => {
    asked.push(capability)
    return ready.promise
  })
  const { clusterFacts } = pathsOf(given)
  const done = facts.run(given.context, new AbortController().signal)
  expect(asked).toEqual(['api'])
  expect(existsSync(clusterFacts)).toBe(false)
  ready.resolve()
  await done
  expect(readFacts(given.dataDir)).toMatchObject({
    cluster: { 'cluster-dns': '10.96.0.10' },
    node: { role: 'server', 'node-name': 'worker-1' },
  })
})

test('a start that never gets so far fixes nothing', async () => {
  const given = await context(() => Promise.reject(new Error('stopped')))
  await expect(facts.run(given.context, new AbortController().signal)).rejects.toThrow('stopped')
  expect(existsSync(pathsOf(given).clusterFacts)).toBe(false)
})

test('a server that joins has joined when its member votes and its Node is there, or never', async () => {
  const joined = Promise.withResolvers<void>()
  const given = await context(() => Promise.resolve())
  const paths = pathsOf(given)
  const joining = { ...given.context, storage: { joined: joined.promise } } as TaskContext
  updateNodeRecord(paths, { isJoining: true })
  const end = new AbortController()
  const interrupted = facts.run(joining, end.signal)
  end.abort(new Error('the end'))
  await expect(interrupted).rejects.toThrow('the end')
  expect(readNodeRecord(paths).isJoining).toBe(true)
  const done = facts.run(joining, new AbortController().signal)
  joined.resolve()
  await done
  expect(readNodeRecord(paths).isJoining).toBeUndefined()
})
