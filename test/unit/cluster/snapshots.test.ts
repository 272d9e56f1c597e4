import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { dueBy, firstTime, takeSnapshot } from '../../../src/cluster/tasks/snapshots.ts'
import type { Config } from '../../../src/config/config.ts'
import { type Cron, nextTime, parseCron } from '../../../src/config/table/cron.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { openPayload } from '../../../src/payload/payload.ts'
import { embeddedStorage } from '../../../src/storage/embedded.ts'
import { openSnapshotFile, writeSnapshotFile } from '../../../src/snapshot/file.ts'
import { fileNameOf, pruneSnapshots } from '../../../src/snapshot/store.ts'
import { commandEnvironment, dataDirectory, save, serve } from '../snapshot/support.ts'

const main = new URL('../../../src/main.ts', import.meta.url).pathname

function take(config: Config, made: string[] = []): Promise<void> {
  const payload = openPayload(commandEnvironment().K8S_PAYLOAD_DIR)
  const { snapshots } = embeddedStorage({ config, paths: pathsOf(config), payload, log: silentLogger, main })
  if (snapshots === undefined) throw new Error('it takes snapshots')
  return takeSnapshot({
    config,
    source: snapshots,
    log: silentLogger,
    signal: new AbortController().signal,
    made,
  })
}

test('the schedule takes a snapshot while the datastore serves, and keeps as many as it shall', async () => {
  const paths = dataDirectory()
  const { put, all } = await serve(paths)
  await put('a', '1')
  const kept = await save(paths)
  const snapshotDir = join(paths.dataDir, 'snapshots')
  for (const day of [1, 2, 3]) {
    writeFileSync(join(snapshotDir, `scheduled-one-2020010${day}T000000Z.tar.zst`), readFileSync(kept.path))
  }
  const snapshotSecretFile = join(paths.dataDir, 'secret')
  writeFileSync(snapshotSecretFile, 'a secret of many characters')
  await take({
    nodeName: 'one',
    dataDir: paths.dataDir,
    snapshotDir,
    snapshotSecretFile,
    snapshotRetention: 2,
  } as Config)
  const names = readdirSync(snapshotDir).filter((name) => name.startsWith('scheduled'))
  expect(names.toSorted()).toEqual([
    'scheduled-one-20200103T000000Z.tar.zst',
    expect.stringMatching(/^scheduled-one-2\d{7}T\d{6}Z\.tar\.zst\.sealed$/),
  ])
  const { header } = await openSnapshotFile(
    join(snapshotDir, names.find((name) => name.endsWith('sealed')) ?? ''),
  )
  expect(header).toMatchObject({ revision: 2, keys: 1 })
  expect(await all()).toEqual({ revision: 2, values: { a: '1' } })
})

test('a snapshot that cannot be taken says why, and removes none', async () => {
  const paths = dataDirectory()
  const snapshotDir = join(paths.dataDir, 'snapshots')
  mkdirSync(snapshotDir)
  const taken = take({ dataDir: paths.dataDir, snapshotDir, snapshotRetention: 1 } as Config)
  await expect(taken).rejects.toThrow(/cannot open datastore: there is none/)
})

test('times that were missed while no daemon ran are made up for once, soon', async () => {
  const { dataDir } = dataDirectory()
  const snapshotDir = join(dataDir, 'snapshots')
  const midnight = parseCron('0 0 * * *') as Cron
  const day = (days: number) => new Date(2099, 0, 1 + days)
  const made = day(-100)
  const options = { config: { nodeName: 'one', snapshotDir }, source: { createdAt: async () => made } }
  // As none was taken yet, the age of the storage counts.
  expect(await firstTime(midnight, options, made)).toEqual(nextTime(midnight, made))
  const soon = (now: Date) => new Date(now.getTime() + 60_000)
  expect(await firstTime(midnight, options, day(0))).toEqual(soon(day(0)))

  const taken = (name: string, at: Date) =>
    writeSnapshotFile(join(snapshotDir, fileNameOf({ name, at, number: 1, isSealed: false })), {
      contents: { createdAt: at.toISOString(), version: 'v0', revision: 1, keys: 0 },
      files: [],
      secret: undefined,
    })
  mkdirSync(snapshotDir)
  await taken('scheduled-one', day(0))
  // Those of others do not count.
  await taken('scheduled-two', day(3))
  await taken('on-demand', day(3))
  const noon = new Date(day(0).getTime() + 12 * 3_600_000)
  expect(await firstTime(midnight, options, noon)).toEqual(day(1))
  expect(await firstTime(midnight, options, day(3))).toEqual(soon(day(3)))
  // Nor do those of a clock that was ahead.
  await taken('scheduled-one', day(400))
  expect(await firstTime(midnight, options, day(3))).toEqual(soon(day(3)))
})

test('the fresh one stays, whatever the dates of the others say', async () => {
  const paths = dataDirectory()
  const { put } = await serve(paths)
  await put('a', '1')
  const kept = readFileSync((await save(paths)).path)
  const snapshotDir = join(paths.dataDir, 'snapshots')
  const config = { nodeName: 'one', dataDir: paths.dataDir, snapshotDir, snapshotRetention: 2 } as Config
  const ahead = [1, 2, 3, 4, 5].map((day) => `scheduled-one-2999010${day}T000000Z.tar.zst`)
  const behind = [1, 2].map((day) => `scheduled-one-2020010${day}T000000Z.tar.zst`)
  for (const fileName of [...ahead, ...behind]) writeFileSync(join(snapshotDir, fileName), kept)
  const made: string[] = []
  await take(config, made)
  await take(config, made)
  // More than one may fall into a second.
  expect(new Set(made).size).toBe(2)
  const names = readdirSync(snapshotDir).filter((name) => name.startsWith('scheduled'))
  expect(names.toSorted()).toEqual([...made.map((path) => basename(path)), ...ahead].toSorted())
  // A clock that was put back dates the newest as the oldest.
  const third = join(snapshotDir, 'scheduled-one-20200101T000000Z.tar.zst')
  writeFileSync(third, kept)
  const source = { save: async () => third, createdAt: async () => new Date() }
  const signal = new AbortController().signal
  await takeSnapshot({ config, source, log: silentLogger, signal, made })
  expect(existsSync(third)).toBe(true)
  expect(made.map((path) => existsSync(path))).toEqual([true, true])
})

test('a cluster with the same name in the same directory keeps its own', async () => {
  const [one, other] = [dataDirectory(), dataDirectory()]
  const snapshotDir = join(one.dataDir, 'snapshots')
  for (const paths of [one, other]) await (await serve(paths)).put('a', '1')
  const config = ({ dataDir }: typeof one) =>
    ({ nodeName: 'one', dataDir, snapshotDir, snapshotRetention: 1 }) as Config
  const made: Record<string, string[]> = { one: [], other: [] }
  await take(config(one), made['one'])
  await take(config(other), made['other'])
  await take(config(other), made['other'])
  await take(config(one), made['one'])
  const kept = [made['one']?.at(-1), made['other']?.at(-1)].map((path) => basename(path ?? ''))
  expect(readdirSync(snapshotDir).toSorted()).toEqual(kept.toSorted())
  expect((await pruneSnapshots(snapshotDir, { retention: 1 })).removed).toEqual([])
})

test('a clock that is put back does not put the next time off', () => {
  const midnight = parseCron('0 0 * * *') as Cron
  const due = new Date(2099, 0, 2)
  expect(dueBy(midnight, due, new Date(2099, 0, 1, 12))).toEqual(due)
  expect(dueBy(midnight, due, new Date(2027, 5, 1, 12))).toEqual(new Date(2027, 5, 2))
})
