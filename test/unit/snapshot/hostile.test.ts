import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AppError, describeError } from '../../../src/base/errors.ts'
import { tar, tarChecksum, tarFields } from '../../../src/base/tar.ts'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { Loader } from '../../../src/datastore/log/load.ts'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { filesToSave } from '../../../src/snapshot/contents.ts'
import {
  openSnapshotFile,
  readSnapshotFile,
  type SnapshotFile,
  writeSnapshotFile,
} from '../../../src/snapshot/file.ts'
import { restoreSnapshot } from '../../../src/snapshot/restore.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { dataDirectory, writeKeys } from './support.ts'

const secret = 'a secret of many characters'
const digestBytes = 32
const frameHeadBytes = 8

let dir: string
let good: SnapshotFile
let sealed: SnapshotFile
let database: Buffer

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'k8s-hostile-'))
  const paths = pathsOf({ dataDir: dir })
  for (const made of [paths.databaseDir, paths.pkiDir]) mkdirSync(made)
  writeKeys(paths, 'theirs')
  const loader = new Loader({ path: paths.database })
  for (let revision = 2; revision < 50; revision++) {
    const place = { revision, sub: 0, createRevision: revision, version: 1, lease: 0n }
    loader.version({ ...place, key: Buffer.from(`key-${revision}`), value: Buffer.alloc(100) })
  }
  loader.finish({ compactedRevision: -1 })
  const write = async (name: string, given?: string) => {
    const contents = { createdAt: new Date().toISOString(), version: 'v0', revision: 49, keys: 48 }
    const files = await filesToSave(paths, paths.database)
    await writeSnapshotFile(join(dir, name), { contents, files, secret: given })
    return openSnapshotFile(join(dir, name))
  }
  good = await write('good')
  sealed = await write('sealed', secret)
  database = readFileSync(paths.database)
})

afterAll(() => rmSync(dir, { recursive: true }))

/** A data directory with keys and a database of its own, and what is in it. */
function victim(): { paths: Paths; before: Record<string, string> } {
  const paths = dataDirectory()
  writeKeys(paths, 'ours')
  return { paths, before: contentsOf(paths.dataDir) }
}

function contentsOf(dir: string): Record<string, string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter(
    // The lock is taken in any case.
    (entry) => !entry.isDirectory() && !entry.name.endsWith('.lock'),
  )
  return Object.fromEntries(
    files.map(({ parentPath, name }) => [
      join(parentPath, name),
      readFileSync(join(parentPath, name), 'latin1'),
    ]),
  )
}

function fileOf(bytes: Buffer): string {
  const path = join(temporaryDirectory(), 'snapshot')
  writeFileSync(path, bytes)
  return path
}

function restore(paths: Paths, file: string, given?: string) {
  return restoreSnapshot({ paths, file, secret: given, nativeBinding: undefined })
}

/** The header's frame of a snapshot, what follows it, and all with a digest that is right. */
function partsOf(path: string): { header: Buffer; body: Buffer } {
  const bytes = readFileSync(path)
  const headerBytes = frameHeadBytes + bytes.readUInt32LE(4)
  return {
    header: bytes.subarray(0, headerBytes),
    body: bytes.subarray(headerBytes, bytes.length - digestBytes - frameHeadBytes),
  }
}

function assemble(header: Buffer, body: Buffer): Buffer {
  const head = Buffer.alloc(frameHeadBytes)
  head.writeUInt32LE(0x184d2a51, 0)
  head.writeUInt32LE(digestBytes, 4)
  const hashed = Buffer.concat([header, body, head])
  return Buffer.concat([hashed, createHash('sha256').update(hashed).digest()])
}

function headerOf(changes: object): Buffer {
  const { header } = partsOf(good.path)
  const text = Buffer.from(
    JSON.stringify({ ...JSON.parse(header.toString('utf8', frameHeadBytes)), ...changes }),
  )
  const head = Buffer.from(header.subarray(0, frameHeadBytes))
  head.writeUInt32LE(text.length, 4)
  return Buffer.concat([head, text])
}

/** A whole snapshot of these blocks of a tar. */
const forged = (archive: readonly Buffer[], changes: object = {}): Buffer =>
  assemble(headerOf(changes), zstdCompressSync(Buffer.concat(archive)))

const file = (path: string, content: Buffer = Buffer.from('forged')) =>
  ({ path, type: 'file', mode: 0o600, content }) as const
const keys = () => bundleFiles('pki').map(({ path }) => file(path))
const db = () => file('db/state.db', database)

/** A tar of which the first header is changed, with the sum that fits. */
function changedHead(archive: Buffer[], change: (head: Buffer) => void): Buffer[] {
  const [head = Buffer.alloc(0)] = archive
  change(head)
  head.write(`${tarChecksum(head).toString(8).padStart(6, '0')}\0 `, tarFields.sum, 'latin1')
  return archive
}

/** What a restore says that refuses these bytes; it has changed nothing. */
async function refusalOf(bytes: Buffer, given?: string): Promise<string> {
  const { paths, before } = victim()
  const error: unknown = await restore(paths, fileOf(bytes), given).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(AppError)
  expect(contentsOf(paths.dataDir)).toEqual(before)
  expect(readdirSync(paths.dataDir).toSorted()).toEqual(['db', 'pki'])
  return describeError(error)
}

describe('a forged snapshot', () => {
  test('that is put together as a good one is restored', async () => {
    const { paths } = victim()
    await restore(paths, fileOf(forged(tar([...keys(), db()]), { files: undefined })))
    expect(readFileSync(join(paths.pkiDir, 'encryption-config.yaml'), 'utf8')).toBe('forged')
  })

  test.each([
    '../../../../tmp/x',
    '/etc/cron.d/x',
    'pki/../../x',
    'db/state.db-wal',
    'pki/apiserver.key',
    './db/state.db',
    'node.json',
    'pki',
    '',
    'a\u001b[2Jb',
  ])('with a file called %j is refused', async (name) => {
    expect(await refusalOf(forged(tar([...keys(), db(), file(name)])))).toMatch(
      /it has a file .*, which no snapshot has/,
    )
  })

  test.each([
    ['link', '2'],
    ['hard link', '1'],
    ['character device', '3'],
    ['block device', '4'],
    ['directory', '5'],
    ['fifo', '6'],
    ['extended header', 'x'],
    ['longer name', 'L'],
    ['sparse file', 'S'],
    ['old plain file', '\0'],
  ])('with a %s in it is refused', async (_, type) => {
    const archive = changedHead(tar([...keys(), db()]), (head) => head.write(type, tarFields.type, 'latin1'))
    expect(await refusalOf(forged(archive))).toMatch(/is no plain file/)
  })

  test.each([
    ['negative', '-0000000005\0'],
    ['no number', 'abcdefghijk\0'],
    ['empty', '\0\0\0\0\0\0\0\0\0\0\0\0'],
    ['beyond 2^53', Buffer.from([0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255])],
    ['of 96 bits', Buffer.from([0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6])],
  ])('with a size that is %s is refused', async (_, size) => {
    const archive = changedHead(tar([file('db/state.db')]), (head) =>
      typeof size === 'string' ? head.write(size, tarFields.size, 'latin1') : head.set(size, tarFields.size),
    )
    expect(await refusalOf(forged(archive))).toMatch(/has no size/)
  })

  test('with a longer name than it shows is refused', async () => {
    const archive = changedHead(tar([...keys(), db()]), (head) => head.write('../..', tarFields.prefix))
    expect(await refusalOf(forged(archive))).toMatch(/has a longer name/)
  })

  test('whose owner and mode are others is unpacked as our own', async () => {
    const { paths } = victim()
    const archive = changedHead(tar([...keys(), db()]), (head) => {
      head.write('0004777', tarFields.mode)
      head.write('0001750', tarFields.owner)
      head.write('0001750', tarFields.group)
    })
    await restore(paths, fileOf(forged(archive, { files: undefined })))
    const { mode, uid, gid } = statSync(join(paths.pkiDir, 'server-ca.key'))
    expect([mode & 0o7777, uid, gid]).toEqual([0o600, process.getuid?.(), process.getgid?.()])
  })

  test('with a file twice is refused', async () => {
    expect(await refusalOf(forged(tar([...keys(), db(), db()])))).toMatch(/it has db\/state\.db twice/)
  })

  test('with a database larger than the disk is refused before any of it is written', async () => {
    const archive = changedHead(tar([file('db/state.db')]), (head) =>
      head.write('77777777777\0', tarFields.size),
    )
    // 8 GiB may be free; 2^50 bytes are not.
    const larger = changedHead(tar([file('db/state.db')]), (head) =>
      head.set([0x80, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0], tarFields.size),
    )
    expect(await refusalOf(forged(larger))).toMatch(/its database has 1125899907 MB/)
    expect(await refusalOf(forged(archive))).toMatch(/too early|are free/)
  })

  test('with a key file of 2 MB is refused', async () => {
    const large = file('pki/server-ca.key', Buffer.alloc(2_000_000))
    expect(await refusalOf(forged(tar([large, db()])))).toContain(
      'pki/server-ca.key in it is longer than 1048576 bytes',
    )
  })

  test('that unpacks to zeros without end is given up', async () => {
    const zeros = Buffer.alloc(256 * 1024 * 1024)
    expect(await refusalOf(forged([...tar([...keys(), db()]), zeros]))).toMatch(/goes on after its end/)
  })

  test.each([
    ['without its database', () => keys(), 'it lacks db/state.db'],
    ['without one key', () => [...keys().slice(1), db()], 'it lacks pki/server-ca.key'],
    ['with one key alone', () => [...keys().slice(0, 1), db()], 'it lacks pki/client-ca.key'],
    ['without what its header names', () => [db()], 'it lacks pki/server-ca.key'],
  ])('%s is refused', async (_, entries, reason) => {
    expect(await refusalOf(forged(tar(entries())))).toContain(reason)
  })

  test('with a file that its header does not name is refused', async () => {
    expect(await refusalOf(forged(tar([...keys(), db()]), { files: ['db/state.db'] }))).toContain(
      'its header does not name pki/server-ca.key',
    )
  })

  test.each([
    ['no database at all', Buffer.from('nothing')],
    ["another program's", 'foreign'],
  ])('whose database is %s is refused', async (_, content) => {
    const bytes = Buffer.isBuffer(content) ? content : foreignDatabase()
    expect(await refusalOf(forged(tar([...keys(), file('db/state.db', bytes)])))).toMatch(
      /cannot (open datastore|restore)/,
    )
  })

  test.each([
    ['CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM version; END', 'trigger "t"'],
    ['CREATE VIEW v AS SELECT 1', 'view "v"'],
    ['CREATE TABLE t (a, b AS (zeroblob(1e9)))', 'table "t"'],
    ['CREATE INDEX i ON version (abs(revision))', 'index "i"'],
    ['DROP TABLE lease', 'table "lease"'],
    ['PRAGMA user_version = 1', 'table "version"'],
  ])('whose database has had %j is refused', async (statement, object) => {
    const path = join(temporaryDirectory(), 'changed.db')
    writeFileSync(path, database)
    runSql(path, statement)
    const entries = [...keys(), file('db/state.db', readFileSync(path))]
    expect(await refusalOf(forged(tar(entries)))).toContain(
      `its database is damaged: it has ${JSON.stringify(object)} otherwise than it was made`,
    )
  })

  test.each([
    { createdAt: 'yesterday' },
    { version: 'v1\u001b]0;owned\u0007' },
    { revision: -1 },
    { keys: '3' },
    { files: 'db/state.db' },
    { files: [7] },
    { sealed: {} },
    { sealed: { kdf: 'scrypt', salt: 'AAAA', cost: -2, blockSize: 8, parallelization: 1 } },
    { sealed: { kdf: 'none', salt: 'AAAA', cost: 2, blockSize: 8, parallelization: 1 } },
  ])('whose header has %j is refused', async (changes) => {
    expect(await refusalOf(forged(tar([...keys(), db()]), changes))).toContain('its header is damaged')
  })

  test('whose key would cost more memory than there is is refused', async () => {
    const derivation = { kdf: 'scrypt', salt: 'AAAA', cost: 2 ** 30, blockSize: 64, parallelization: 64 }
    expect(await refusalOf(forged([Buffer.alloc(1024)], { sealed: derivation }), secret)).toMatch(
      /more than 512 MB/,
    )
  })

  test('that is not sealed does not pass for one that is', async () => {
    expect(await refusalOf(readFileSync(good.path), secret)).toMatch(
      /it is not sealed, and a secret is named/,
    )
  })

  test('is not shown with what commands a terminal', async () => {
    const path = fileOf(forged([], { formatVersion: '\u001b[2J' }))
    await expect(openSnapshotFile(path)).rejects.toThrow('its format is "?u001b[2J"'.replace('?', '\\'))
  })
})

test('what is no plain file is not waited for', async () => {
  const path = join(temporaryDirectory(), 'fifo')
  execFileSync('mkfifo', [path])
  await expect(openSnapshotFile(path)).rejects.toThrow('it is no plain file')
  await expect(openSnapshotFile('/dev/zero')).rejects.toThrow('it is no plain file')
})

test('a file that is changed while it is read is refused', async () => {
  const { paths, before } = victim()
  const path = fileOf(readFileSync(good.path))
  const first = await openSnapshotFile(path)
  writeFileSync(path, forged(tar([...keys(), db()]), { files: undefined }))
  const reading = async () => {
    for await (const { content } of readSnapshotFile(first, undefined)) for await (const _ of content);
  }
  await expect(reading()).rejects.toBeInstanceOf(AppError)
  expect(contentsOf(paths.dataDir)).toEqual(before)
})

/** xorshift32: the same mutations every time. */
function random(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

function mutate(bytes: Buffer, next: (below: number) => number): Buffer {
  const changed = Buffer.from(bytes)
  const at = next(changed.length)
  switch (next(5)) {
    case 0:
      changed[at] = next(256)
      return changed
    case 1:
      return changed.subarray(0, at)
    case 2:
      return Buffer.concat([
        changed.subarray(0, at),
        Buffer.alloc(1 + next(600), next(256)),
        changed.subarray(at),
      ])
    case 3:
      return Buffer.concat([
        changed.subarray(0, at),
        changed.subarray(Math.min(changed.length, at + 1 + next(600))),
      ])
    default: {
      const from = next(changed.length)
      changed.copy(changed, at, from, Math.min(from + 512, changed.length))
      return changed
    }
  }
}

describe('a mutated snapshot is restored whole, or refused without a trace', () => {
  test.each([
    ['the file', 1, (next: (below: number) => number) => mutate(readFileSync(good.path), next)],
    [
      'its parts, with a digest that fits',
      2,
      (next: (below: number) => number) => {
        const { header, body } = partsOf(good.path)
        return next(4) === 0 ? assemble(mutate(header, next), body) : assemble(header, mutate(body, next))
      },
    ],
    [
      'its archive, packed again',
      3,
      (next: (below: number) => number) => {
        const { header, body } = partsOf(good.path)
        // Most of it is the database; what is before it is structure.
        const archive = zstdDecompressSync(body)
        const changed = mutate(archive.subarray(0, 16 * 1024), next)
        return assemble(header, zstdCompressSync(Buffer.concat([changed, archive.subarray(16 * 1024)])))
      },
    ],
    [
      'what is sealed',
      4,
      (next: (below: number) => number) => {
        const { header, body } = partsOf(sealed.path)
        return next(4) === 0 ? assemble(mutate(header, next), body) : assemble(header, mutate(body, next))
      },
    ],
  ])('%s', async (_, seed, make) => {
    // The secret's key takes a tenth of a second each time.
    const rounds = seed === 4 ? 15 : 60
    const next = random(seed * 7919)
    let refusals = 0
    for (let round = 0; round < rounds; round++) {
      const { paths, before } = victim()
      const given = seed === 4 ? secret : undefined
      const outcome = await restore(paths, fileOf(make(next)), given).then(
        () => undefined,
        (error: unknown) => error,
      )
      if (outcome === undefined) {
        expect(readdirSync(paths.dataDir).toSorted()).toEqual(['db', 'pki', 'replaced'])
        expect(readdirSync(paths.pkiDir).toSorted()).toEqual(
          bundleFiles('pki')
            .map(({ name }) => name)
            .toSorted(),
        )
        continue
      }
      refusals++
      expect(outcome, String((outcome as Error).stack)).toBeInstanceOf(AppError)
      expect(contentsOf(paths.dataDir)).toEqual(before)
    }
    expect(refusals).toBeGreaterThan(rounds / 2)
  })
})

function foreignDatabase(): Buffer {
  const path = join(temporaryDirectory(), 'foreign.db')
  runSql(path, 'CREATE TABLE a (b)')
  return readFileSync(path)
}

function runSql(path: string, statement: string): void {
  const script = `const { DatabaseSync } = require('node:sqlite'); new DatabaseSync(process.argv[1]).exec(process.argv[2])`
  execFileSync(process.execPath, ['-e', script, path, statement])
}
