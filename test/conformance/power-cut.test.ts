import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../src/base/logger.ts'
import { describeError } from '../../src/base/errors.ts'
import { startDatastore } from '../../src/datastore/datastore.ts'
import { RawClient } from '../unit/datastore/support.ts'
import { datastoreCommand, root } from './go-suite.ts'
import { Disk, type Fate, type Recorded, fates, readRecording } from './power-cut/disk.ts'
import { problemsOf, readWrites } from './power-cut/found.ts'
import { Workload, end, startPreloaded } from './power-cut/workload.ts'

/**
 * Cuts the power at many moments of a server's life: what it asks of its disk is recorded; each cut makes
 * of it what was synced, and some of what was not; and a server started on that must have all that had
 * been acknowledged by then.
 */
const cuts = 320
const build = join(root, 'build/conformance/power-cut')
let directory: string
let workload: Workload
let records: Recorded[]

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'k8s-power-cut-'))
})

afterAll(() => rmSync(directory, { recursive: true, force: true }))

test('a server’s life is recorded: writes, a compaction, checkpoints, a kill, two restarts', async () => {
  const command = `${await datastoreCommand('power-cut')} --port 0`
  const recorder = join(build, 'recorder.so')
  const source = join(root, 'test/conformance/power-cut/recorder.c')
  execFileSync('gcc', ['-O2', '-shared', '-fPIC', '-o', recorder, source, '-ldl', '-lpthread'])
  const recording = join(directory, 'recording')
  const recorded = join(directory, 'recorded')
  mkdirSync(recorded)
  workload = new Workload(recording)

  const kill = join(directory, 'kill')
  const env = { RECORD_DIRECTORY: recorded, RECORD_LOG: recording, RECORD_KILL: kill }
  const start = async (): ReturnType<typeof startPreloaded> => {
    const started = await startPreloaded({ command, library: recorder, directory: recorded, env })
    onTestFinished(() => void started.process.kill('SIGKILL'))
    return started
  }
  let server = await start()
  let client = new RawClient(server.listening)
  await workload.write(client, 150)
  await workload.grant(client, 7)
  await workload.write(client, 150)
  await workload.compact(client)
  await workload.write(client, 150)
  const interrupted = workload.write(client, 10_000)
  await new Promise((resolve) => setTimeout(resolve, 200))
  workload.cutOff()
  await new Promise((resolve) => setTimeout(resolve, 50))
  writeFileSync(kill, '')
  await once(server.process, 'exit')
  rmSync(kill)
  await interrupted
  server = await start()
  client = new RawClient(server.listening)
  workload.saw(await readWrites(client))
  await workload.write(client, 50)
  await workload.compact(client)
  await end(server.process, 'SIGTERM')
  server = await start()
  client = new RawClient(server.listening)
  await workload.write(client, 50)
  await end(server.process, 'SIGTERM')
  records = readRecording(recording).filter(({ path }) => !path.endsWith('-shm'))

  const { writes, compactions, leases } = workload.acknowledged
  expect(writes.length).toBeGreaterThan(500)
  expect(writes.length).toBe(Math.max(...writes.map(({ revision }) => revision)) - 1)
  expect(compactions.length).toBe(2)
  expect(leases.length).toBe(1)
  const checkpoints = records.filter(({ path, operation }) => path.endsWith('state.db') && operation === 5)
  expect(checkpoints.length).toBeGreaterThan(4)
})

/** The same numbers in each run: xorshift32. */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

test('after a power cut everything acknowledged is there, and nothing by half', async () => {
  const random = randomNumbers(20_261_121)
  const firstStart = records.findIndex(({ end: at }) => at > (workload.acknowledged.writes[0]?.position ?? 0))
  const places = new Set(Array.from({ length: firstStart }, (_, place) => place))
  while (places.size < cuts) places.add(Math.floor(random() * records.length))
  const disk = new Disk()
  const problems: string[] = []
  for (const [place, record] of records.entries()) {
    disk.apply(record)
    if (!places.has(place)) continue
    const fate = fates[place % fates.length] as Fate
    const state = join(directory, `cut-${place}`)
    mkdirSync(state)
    disk.writeTo(state, fate, random)
    const found = await reopened(state, record.end)
    rmSync(state, { recursive: true })
    problems.push(...found.map((problem) => `cut after record ${place} (${fate}): ${problem}`))
  }
  expect(problems).toEqual([])
})

async function reopened(state: string, position: number): Promise<string[]> {
  try {
    const datastore = await startDatastore({
      path: join(state, 'data/db/state.db'),
      listen: { host: '127.0.0.1', port: 0 },
      workerUrl: pathToFileURL(join(build, 'bundle/datastore-worker.js')),
      nativeBinding: join(root, 'node_modules/better-sqlite3/prebuilds/linux-x64.node'),
      log: silentLogger,
    })
    try {
      return await problemsOf(new RawClient(datastore.listening), workload.acknowledged, position)
    } finally {
      await datastore.stop()
    }
  } catch (thrown) {
    return [`it cannot be opened: ${describeError(thrown)}`]
  }
}
