import { mkdtempDisposableSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { expect, test, vi } from 'vitest'
import { compress } from '../../../scripts/compress.ts'

function compressIn(directory: string) {
  vi.stubEnv('SECTIONS_DIR', directory)
  return async (text: string) => zstdDecompressSync(await compress([Buffer.from(text)], 'fast')).toString()
}

// An artifact's own digests are made of what is packed: it would have been sound, with something else in it.
test.each([
  ['cut off', (file: string) => writeFileSync(file, '')],
  ['damaged', (file: string) => writeFileSync(file, 'no zstd')],
  ['of another content', (file: string) => writeFileSync(file, zstdCompressSync('another content'))],
])('what was compressed before is not used when it is %s', async (_, spoil) => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-sections-'))
  const compressed = compressIn(directory.path)
  const told = vi.spyOn(console, 'error').mockImplementation(() => {})
  expect(await compressed('a section')).toBe('a section')
  const [kept = ''] = readdirSync(directory.path)
  expect(await compressed('a section')).toBe('a section')
  expect(told).not.toHaveBeenCalled()
  spoil(join(directory.path, kept))
  expect(await compressed('a section')).toBe('a section')
  expect(told).toHaveBeenCalledOnce()
  expect(readdirSync(directory.path)).toEqual([kept])
})
