import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Paths } from '../../../src/config/paths.ts'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { runCli } from '../cli/run-cli.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { commandEnvironment, dataDirectory, save, serve, writeKeys } from './support.ts'

function snapshot(paths: Paths, ...args: string[]) {
  const [command = '', ...rest] = args
  return runCli({
    args: ['snapshot', command, ...rest, `--data-dir=${paths.dataDir}`],
    environment: commandEnvironment(),
  })
}

async function filled(): Promise<Paths> {
  const paths = dataDirectory()
  const { put, datastore } = await serve(paths)
  await put('a', '1')
  await datastore.stop()
  return paths
}

test('k8s snapshot ls shows what there is, and what is damaged', async () => {
  const paths = await filled()
  expect(await snapshot(paths, 'ls')).toMatchObject({ code: 0, stdout: /^There are no snapshots in/ })
  const { path, digest } = await save(paths)
  const { code, stdout } = await snapshot(paths, 'ls')
  expect(code).toBe(0)
  expect(stdout).toMatch(
    /^NAME +CREATED +BYTES +REVISION +KEYS +SEALED +VERSION\ntest-\S+Z\.tar\.zst .* 2 +1 +no +v0\n$/,
  )
  const { snapshots } = JSON.parse((await snapshot(paths, 'ls', '-o', 'json')).stdout) as {
    snapshots: object[]
  }
  expect(snapshots).toMatchObject([
    { path, name: 'test', sha256: digest, revision: 2, keys: 1, sealed: false },
  ])

  writeFileSync(join(paths.dataDir, 'snapshots', 'test-20200101T000000Z.tar.zst'), 'nothing')
  const spoilt = await snapshot(paths, 'ls')
  expect(spoilt.code).toBe(1)
  expect(spoilt.stdout).toMatch(
    /cannot use the snapshot .*test-20200101T000000Z\.tar\.zst: it is no snapshot/,
  )
})

test('k8s snapshot prune keeps the newest of each name', async () => {
  const paths = await filled()
  const { path } = await save(paths)
  const dir = join(paths.dataDir, 'snapshots')
  const bytes = readFileSync(path)
  for (const fileName of ['x-20200101T000000Z', 'x-20200102T000000Z', 'y-20200101T000000Z', 'notes'])
    writeFileSync(join(dir, `${fileName}.tar.zst`), bytes)
  const { code, stdout } = await snapshot(paths, 'prune', '--snapshot-retention=1')
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'removed x-20200101T000000Z.tar.zst\n' })
  const left = readdirSync(dir).filter((fileName) => fileName !== path.slice(dir.length + 1))
  expect(left.toSorted()).toEqual([
    'notes.tar.zst',
    'x-20200102T000000Z.tar.zst',
    'y-20200101T000000Z.tar.zst',
  ])
})

test('k8s snapshot restore takes a name that ls prints', async () => {
  const paths = await filled()
  const { path } = await save(paths)
  const { code, stdout, stderr } = await snapshot(paths, 'restore', path.slice(path.lastIndexOf('/') + 1))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(
    /^Restored revision 2; the datastore goes on at 1000000002\.\nWhat was there before is in /,
  )
})

test('several snapshots of one second have names of their own', async () => {
  const paths = await filled()
  const taken = await Promise.all([1, 2, 3, 4].map(() => save(paths, { name: 'same' })))
  expect(new Set(taken.map(({ path }) => path)).size).toBe(4)
  expect(readdirSync(join(paths.dataDir, 'snapshots')).length).toBe(4)
  // In the order of their making, the newest first.
  const stamped = ['-2', '', '-10'].map((number) => `z-20200101T000000Z${number}.tar.zst`)
  const bytes = readFileSync(taken[0]!.path)
  for (const fileName of stamped) writeFileSync(join(paths.dataDir, 'snapshots', fileName), bytes)
  expect((await snapshot(paths, 'prune', 'z', '--snapshot-retention=1')).stdout).toBe(
    'removed z-20200101T000000Z-2.tar.zst\nremoved z-20200101T000000Z.tar.zst\n',
  )
})

test('snapshots that are dated later than now are told, and neither counted nor removed', async () => {
  const paths = await filled()
  const { path } = await save(paths)
  const names = [1, 2].map((day) => `test-2999010${day}T000000Z.tar.zst`)
  for (const fileName of names) writeFileSync(join(paths.dataDir, 'snapshots', fileName), readFileSync(path))
  const { stdout } = await snapshot(paths, 'prune', '--snapshot-retention=1')
  expect(stdout).toMatch(
    /^dated later than now, .*neither counted nor removed: test-29990102\S+, test-29990101\S+\n$/,
  )
  expect(readdirSync(join(paths.dataDir, 'snapshots')).length).toBe(3)
  expect((await snapshot(paths, 'ls')).stdout).toContain('dated later than now')
  const listed = JSON.parse((await snapshot(paths, 'ls', '-o', 'json')).stdout) as {
    snapshots: { isAhead: boolean }[]
  }
  expect(listed.snapshots.map(({ isAhead }) => isAhead)).toEqual([true, true, false])
})

test.each(bundleFiles('pki').map(({ name }) => name))(
  'a snapshot without the key file %s is refused',
  async (name) => {
    const paths = await filled()
    writeKeys(paths, 'mark')
    rmSync(join(paths.pkiDir, name))
    const missing = await snapshot(paths, 'save')
    expect(missing.code).toBe(1)
    expect(missing.stderr).toContain(
      `cannot take a snapshot: the key file ${join(paths.pkiDir, name)} is missing`,
    )
    writeFileSync(join(paths.pkiDir, name), '')
    expect((await snapshot(paths, 'save')).stderr).toContain('is empty')
    expect(readdirSync(join(paths.dataDir, 'snapshots'))).toEqual([])
  },
)

test("a snapshot of a server whose keys are all gone is refused; a datastore's alone has none", async () => {
  const paths = await filled()
  expect((await save(paths)).header.files).toEqual(['db/state.db'])
  writeFileSync(paths.clusterFacts, '{}')
  rmSync(paths.pkiDir, { recursive: true })
  expect((await snapshot(paths, 'save')).stderr).toContain('is missing')
})

describe('bad input', () => {
  test.each([
    [['save', '../x'], 2, /cannot use the name "\.\.\/x": allowed are/],
    [['save'], 1, /cannot open datastore: there is none/],
    [['save', '--snapshot-secret-file=/nowhere'], 1, /cannot read the secret file \/nowhere/],
    [['restore'], 2, /cannot run snapshot restore without SNAPSHOT/],
    [['restore', 'nothing'], 1, /cannot use the snapshot nothing: ENOENT/],
    [['prune', '--snapshot-retention=0'], 2, /allowed is a whole number from 1/],
    [['wat'], 2, /there is no such command/],
  ])('%j', async (args, expected, reason) => {
    const { code, stderr } = await snapshot(dataDirectory(), ...args)
    expect(code).toBe(expected)
    expect(stderr).toMatch(reason)
  })

  test('a secret that can be guessed', async () => {
    const path = join(temporaryDirectory(), 'secret')
    writeFileSync(path, 'short\n')
    const { code, stderr } = await snapshot(await filled(), 'save', `--snapshot-secret-file=${path}`)
    expect(code).toBe(1)
    expect(stderr).toMatch(/it has 5 characters; allowed are 16 and more/)
  })

  test('a directory that cannot be made', async () => {
    const paths = await filled()
    writeFileSync(join(paths.dataDir, 'snapshots'), '')
    expect(await snapshot(paths, 'save')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^k8s: cannot prepare the directory of snapshots .*\n$/),
    })
  })
})

test('every command is in the help', async () => {
  for (const command of ['save', 'ls', 'restore', 'prune']) {
    const { code, stdout } = await runCli({ args: ['help', 'snapshot', command] })
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining(`k8s snapshot ${command}`) })
  }
})

test('a save that was killed leaves nothing that stays', async () => {
  const paths = await filled()
  const dir = join(paths.dataDir, 'snapshots')
  // No process has this id: pid_max is at most 2^22.
  mkdirSync(join(dir, `.unfinished-${hostname()}-4194305-0123`), { recursive: true })
  // Another machine's may be under way.
  const foreign = '.unfinished-other-4194305-0123'
  mkdirSync(join(dir, foreign))
  const { path } = await save(paths)
  expect(readdirSync(dir)).toEqual([foreign, path.slice(dir.length + 1)])
})

test.each([['snapshot save'], ['db check'], ['db import-kine nothing'], ['db export-etcd nothing']])(
  'k8s %s is refused while a restore is not finished',
  async (command) => {
    const paths = await filled()
    mkdirSync(join(paths.dataDir, 'restore'))
    const { code, stderr } = await runCli({
      args: [...command.split(' '), `--data-dir=${paths.dataDir}`],
      environment: commandEnvironment(),
    })
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /: a restore, a migration or a reset is not finished\. Start k8s, which finishes it/,
    )
  },
)
