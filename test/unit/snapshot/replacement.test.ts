import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { finishReplacement, holdDataDirectory, Replacement } from '../../../src/snapshot/replacement.ts'
import { dataDirectory } from './support.ts'

test('while one is prepared, nobody else begins one, and no daemon starts', async () => {
  const paths = dataDirectory()
  using held = await holdDataDirectory(paths, undefined)
  expect(held.finished).toBeUndefined()
  await using replacement = await Replacement.prepare(paths, 'migration')
  await expect(holdDataDirectory(paths, undefined)).rejects.toMatchObject({ code: 'DATASTORE_LOCKED' })
  await expect(finishReplacement(paths, undefined)).rejects.toMatchObject({
    code: 'REPLACEMENT_UNDER_WAY',
    message: expect.stringMatching(/^cannot start: a restore, a migration or a reset is under way/),
  })
  expect(existsSync(replacement.dir)).toBe(true)
})

test('what was not decided is gone, and what is there was not touched', async () => {
  const paths = dataDirectory()
  writeFileSync(paths.database, 'database')
  {
    using _held = await holdDataDirectory(paths, undefined)
    await using replacement = await Replacement.prepare(paths, 'reset')
    mkdirSync(replacement.memberDir)
    await expect(replacement.requireSpace(1e18, 'reset the cluster')).rejects.toMatchObject({
      code: 'REPLACEMENT_SPACE',
      message: expect.stringMatching(
        /^cannot reset the cluster: it needs \d+ MB free in \S+, and there are \d+$/,
      ),
    })
  }
  expect(readdirSync(paths.dataDir).sort()).toEqual(['db', 'pki'])
})

test('an etcd takes the place of a database, and a database that of an etcd', async () => {
  const paths = dataDirectory()
  for (const suffix of ['', '-wal']) writeFileSync(`${paths.database}${suffix}`, 'database')
  const replaced: (string | undefined)[] = []
  for (const place of ['memberDir', 'database'] as const) {
    using _held = await holdDataDirectory(paths, undefined)
    await using replacement = await Replacement.prepare(paths, 'migration')
    mkdirSync(place === 'memberDir' ? replacement.memberDir : join(replacement.dir, 'db'))
    if (place === 'database') writeFileSync(replacement.database, 'another')
    replaced.push(await replacement.carryOut())
    expect([existsSync(paths.database), existsSync(paths.memberDir)]).toEqual([
      place === 'database',
      place === 'memberDir',
    ])
  }
  expect(replaced.map((dir) => readdirSync(dir ?? '').sort())).toEqual([['db'], ['etcd']])
  expect(readdirSync(join(replaced[0] ?? '', 'db')).sort()).toEqual(['state.db', 'state.db-wal'])
  expect(readdirSync(paths.dataDir).sort()).toEqual(['db', 'pki', 'replaced'])
})

test('a directory on another file system is refused before anything is done', async () => {
  const paths = dataDirectory()
  const elsewhere = mkdtempSync('/dev/shm/k8s-replacement-')
  onTestFinished(() => rmSync(elsewhere, { recursive: true, force: true }))
  symlinkSync(elsewhere, paths.memberDir)
  using _held = await holdDataDirectory(paths, undefined)
  await expect(Replacement.prepare(paths, 'reset')).rejects.toMatchObject({
    code: 'REPLACEMENT_MOUNT',
    fields: { path: paths.memberDir },
  })
  expect(existsSync(`${paths.restoreDir}.preparing`)).toBe(false)
})
