import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { prepareDirectories } from '../../../src/cluster/directories.ts'
import { paths } from '../../../src/config/paths.ts'

async function temporaryPaths() {
  const dir = await mkdtemp(join(tmpdir(), 'k8s-directories-'))
  onTestFinished(() => rm(dir, { recursive: true }))
  return paths({ dataDir: join(dir, 'data') })
}

test('keys, database and rendered files are for root alone, the way to root file systems is open', async () => {
  const where = await temporaryPaths()
  await prepareDirectories(where, silentLogger)
  const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8)
  expect(await Promise.all([where.pkiDir, where.databaseDir, where.etcDir, where.runDir].map(mode))).toEqual([
    '700',
    '700',
    '700',
    '711',
  ])
})

test('what ran before a reboot is forgotten, after a restart it is kept', async () => {
  const where = await temporaryPaths()
  await prepareDirectories(where, silentLogger)
  await mkdir(join(where.runDir, 'containerd'))
  await prepareDirectories(where, silentLogger)
  expect((await readdir(where.runDir)).sort()).toEqual(['boot-id', 'containerd'])
  await writeFile(join(where.runDir, 'boot-id'), 'another boot\n')
  await prepareDirectories(where, silentLogger)
  expect(await readdir(where.runDir)).toEqual(['boot-id'])
  expect(await readFile(join(where.runDir, 'boot-id'), 'utf8')).not.toBe('another boot\n')
})
