import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import {
  createPrivateFileSync,
  makePrivateDirectorySync,
  preparePrivateDirectory,
  readFileIfPresent,
  renameToNewSync,
  temporaryPath,
  writeFileAtomically,
  writeFileAtomicallySync,
  writeFileIfChanged,
} from '../../../src/base/files.ts'
import { temporaryDirectory } from '../datastore/support.ts'

let dir: string
let path: string

beforeEach(() => {
  dir = temporaryDirectory()
  path = join(dir, 'file')
})

const modeOf = (file: string) => statSync(file).mode & 0o777

describe.each([
  ['writeFileAtomically', writeFileAtomically],
  [
    'writeFileAtomicallySync',
    async (...given: Parameters<typeof writeFileAtomicallySync>) => writeFileAtomicallySync(...given),
  ],
])('%s', (_, write) => {
  test.each(['all', 'contents', 'nothing'] as const)(
    'replaces a file as a whole (durable: %s)',
    async (durable) => {
      writeFileSync(path, 'old and longer', { mode: 0o666 })
      await write(path, 'new', { mode: 0o640, durable })
      expect(readFileSync(path, 'utf8')).toBe('new')
      expect(modeOf(path)).toBe(0o640)
      expect(readdirSync(dir)).toEqual(['file'])
    },
  )

  test('gives the mode whatever the umask is', async () => {
    const before = process.umask(0o077)
    try {
      await write(path, Buffer.of(0, 255), { mode: 0o644 })
    } finally {
      process.umask(before)
    }
    expect(modeOf(path)).toBe(0o644)
    expect(readFileSync(path)).toEqual(Buffer.of(0, 255))
  })

  test('leaves nothing behind when it fails, and names the file', async () => {
    mkdirSync(path)
    writeFileSync(join(path, 'x'), '')
    await expect(write(path, 'new', { mode: 0o600 })).rejects.toMatchObject({
      message: `cannot write ${path}`,
      code: 'FILE_WRITE',
    })
    expect(readdirSync(dir)).toEqual(['file'])
    await expect(write(join(dir, 'none', 'file'), 'new', { mode: 0o600 })).rejects.toThrow('cannot write')
  })

  test('replaces a link, and not what it leads to', async () => {
    writeFileSync(join(dir, 'other'), 'other')
    symlinkSync('other', path)
    await write(path, 'new', { mode: 0o600 })
    expect(lstatSync(path).isFile()).toBe(true)
    expect(readFileSync(join(dir, 'other'), 'utf8')).toBe('other')
  })
})

test('names of temporary files cannot be known before', () => {
  const names = new Set(Array.from({ length: 100 }, () => temporaryPath(path)))
  expect(names.size).toBe(100)
})

test('what did not change is not written again, but narrowed', async () => {
  expect(await writeFileIfChanged(path, 'text', { mode: 0o600 })).toBe(true)
  const { ino } = statSync(path)
  chmodSync(path, 0o644)
  expect(await writeFileIfChanged(path, 'text', { mode: 0o600 })).toBe(false)
  expect([statSync(path).ino, modeOf(path)]).toEqual([ino, 0o600])
  expect(await writeFileIfChanged(path, 'other', { mode: 0o600 })).toBe(true)
})

test('a name that is taken is not replaced', () => {
  writeFileSync(path, 'first')
  writeFileSync(join(dir, 'next'), 'second')
  expect(() => renameToNewSync(join(dir, 'next'), path)).toThrow('EEXIST')
  expect(readFileSync(path, 'utf8')).toBe('first')
  renameToNewSync(join(dir, 'next'), join(dir, 'free'))
  expect(readdirSync(dir).toSorted()).toEqual(['file', 'free'])
})

test('a private directory is narrowed, and free of what interrupted writes left', async () => {
  const home = join(dir, 'home')
  mkdirSync(home)
  chmodSync(home, 0o755)
  for (const name of ['kept', '.0123.tmp']) writeFileSync(join(home, name), '')
  await preparePrivateDirectory(home)
  expect(modeOf(home)).toBe(0o700)
  expect(readdirSync(home)).toEqual(['kept'])
  writeFileSync(path, '')
  await expect(preparePrivateDirectory(join(path, 'x'))).rejects.toMatchObject({ code: 'DIRECTORY' })
})

test('private files and directories are made once', () => {
  const file = join(dir, 'a', 'b', 'file')
  makePrivateDirectorySync(join(dir, 'a', 'b'))
  makePrivateDirectorySync(join(dir, 'a', 'b'))
  createPrivateFileSync(file)
  writeFileSync(file, 'text')
  createPrivateFileSync(file)
  expect(readFileSync(file, 'utf8')).toBe('text')
  expect([modeOf(join(dir, 'a')), modeOf(join(dir, 'a', 'b')), modeOf(file)]).toEqual([0o700, 0o700, 0o600])
  expect(() => createPrivateFileSync(join(dir, 'none', 'file'))).toThrow('ENOENT')
})

test('only a file that is missing has no text', async () => {
  expect(await readFileIfPresent(path)).toBeUndefined()
  await expect(readFileIfPresent(dir)).rejects.toMatchObject({
    code: 'FILE_READ',
    message: `cannot read ${dir}`,
  })
})
