import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { deriveKey, newDerivation, seal, unseal } from '../../../src/snapshot/seal.ts'
import { openSnapshotFile, readSnapshotFile, writeSnapshotFile } from '../../../src/snapshot/file.ts'
import { untar } from '../../../src/snapshot/untar.ts'
import { tarFiles } from '../../../src/base/tar.ts'
import { temporaryDirectory } from '../datastore/support.ts'

const header = Buffer.from('header')
const key = randomBytes(32)

function chunks(bytes: Buffer, size: number): Readable {
  const parts = []
  for (let at = 0; at < bytes.length; at += size) parts.push(bytes.subarray(at, at + size))
  return Readable.from(parts)
}

const sealed = (plain: Buffer) => buffer(Readable.from(seal(chunks(plain, 1000), { key, header })))
const opened = (bytes: Buffer, bound = header) =>
  buffer(Readable.from(unseal(chunks(bytes, 777), { key, header: bound })))

describe('what is sealed', () => {
  test.each([0, 1, 65_535, 65_536, 65_537, 300_000])('comes back: %i bytes', async (length) => {
    const plain = randomBytes(length)
    expect((await opened(await sealed(plain))).equals(plain)).toBe(true)
  })

  test('is bound to its header, its order and its end', async () => {
    const bytes = await sealed(Buffer.alloc(200_000))
    const chunk = 4 + 65_536 + 16
    await expect(opened(bytes, Buffer.from('other'))).rejects.toThrow(/the file was changed/)
    await expect(opened(bytes.subarray(0, 2 * chunk))).rejects.toThrow(/the file was changed/)
    await expect(opened(bytes.subarray(0, -1))).rejects.toThrow(/too early/)
    const swapped = Buffer.concat([
      bytes.subarray(chunk, 2 * chunk),
      bytes.subarray(0, chunk),
      bytes.subarray(2 * chunk),
    ])
    await expect(opened(swapped)).rejects.toThrow(/the file was changed/)
  })

  test('does not let a header ask for memory without end', async () => {
    const derivation = { ...newDerivation(), cost: 2 ** 30 }
    await expect(deriveKey('x', derivation)).rejects.toThrow(/more than 512 MB/)
  })
})

test('tar and zstd unpack a snapshot that is not sealed', async () => {
  const dir = temporaryDirectory()
  const content = randomBytes(1_000_001)
  writeFileSync(join(dir, 'a'), content)
  const path = join(dir, 'snapshot.tar.zst')
  const contents = { createdAt: new Date().toISOString(), version: 'v0', revision: 1, keys: 0 }
  const files = [
    { name: 'db/a', path: join(dir, 'a'), mode: 0o600 },
    { name: 'b', path: join(dir, 'a'), mode: 0o644 },
  ]
  await writeSnapshotFile(path, { contents, files, secret: undefined })
  execFileSync('sh', ['-c', `zstd -q -d <${path} >${dir}/x.tar && tar -xf ${dir}/x.tar -C ${dir}`])
  expect(readFileSync(join(dir, 'db', 'a')).equals(content)).toBe(true)

  const found = []
  for await (const entry of readSnapshotFile(await openSnapshotFile(path), undefined))
    found.push([entry.name, (await buffer(Readable.from(entry.content))).equals(content)])
  expect(found).toEqual([
    ['db/a', true],
    ['b', true],
  ])
})

test('a file of 9 GB has the size that tar gives it', async () => {
  const dir = temporaryDirectory()
  const path = join(dir, 'large')
  writeFileSync(path, '')
  truncateSync(path, 9_000_000_000)
  const ours = (await tarFiles([{ name: 'large', path, mode: 0o600 }]).next()).value as Buffer
  const theirs = execFileSync('sh', [
    '-c',
    `tar --format=gnu -cf - -C ${dir} large 2>/dev/null | head -c 512`,
  ])
  for (const head of [ours, theirs]) {
    const { value } = await untar(Readable.from([head])).next()
    expect(value).toMatchObject({ name: 'large', size: 9_000_000_000 })
  }
})
