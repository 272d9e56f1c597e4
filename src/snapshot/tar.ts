import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { ByteReader } from './byte-reader.ts'

/*
 * Plain files in a tar archive, so that tar(1) can unpack one as well: POSIX ustar, with GNU's base-256
 * numbers for sizes from 8 GiB on (tar(5)).
 */

export interface TarFile {
  /** In the archive; at most 100 bytes. */
  readonly name: string
  readonly path: string
  readonly mode: number
}

const blockBytes = 512
const chunkBytes = 256 * 1024
const octalLimit = 8 ** 11
const fields = {
  name: 0,
  mode: 100,
  owner: 108,
  group: 116,
  size: 124,
  time: 136,
  sum: 148,
  type: 156,
} as const
const magicAt = 257
const magic = 'ustar\x0000'
const regularFile = '0'

/** The archive's bytes; a file that changes its size meanwhile is an error. */
export async function* packTar(files: readonly TarFile[]): AsyncGenerator<Buffer> {
  for (const { name, path, mode } of files) {
    const { size, mtimeMs } = await stat(path)
    yield header({ name, mode, size, mtimeSeconds: Math.floor(mtimeMs / 1000) })
    let read = 0
    for await (const chunk of createReadStream(path, {
      highWaterMark: chunkBytes,
    }) as AsyncIterable<Buffer>) {
      read += chunk.length
      yield chunk
    }
    if (read !== size) throw new Error(`${path} changed while it was read`)
    yield Buffer.alloc(paddingOf(size))
  }
  yield Buffer.alloc(2 * blockBytes)
}

export interface TarEntry {
  readonly name: string
  readonly size: number
  /** To be read to its end before the next entry. */
  readonly content: AsyncIterable<Buffer>
}

export async function* unpackTar(chunks: AsyncIterable<Buffer>): AsyncGenerator<TarEntry> {
  const reader = new ByteReader(chunks)
  for (;;) {
    const block = await reader.exactly(blockBytes)
    if (isZero(block)) return checkEnd(reader)
    const { name, size } = parseHeader(block)
    yield { name, size, content: contentOf(reader, size) }
    await reader.exactly(paddingOf(size))
  }
}

/** Only the end of the stream shows that nothing was cut away. */
async function checkEnd(reader: ByteReader): Promise<void> {
  for (;;) {
    const rest = await reader.upTo(chunkBytes)
    if (rest.length === 0) return
    if (!isZero(rest)) throw new Error('it goes on after its end')
  }
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0)
}

async function* contentOf(reader: ByteReader, size: number): AsyncGenerator<Buffer> {
  for (let left = size; left > 0; ) {
    const chunk = await reader.exactly(Math.min(left, chunkBytes))
    left -= chunk.length
    yield chunk
  }
}

function header(file: { name: string; mode: number; size: number; mtimeSeconds: number }): Buffer {
  const block = Buffer.alloc(blockBytes)
  block.write(file.name, fields.name, 'utf8')
  writeOctal(block, fields.mode, { value: file.mode, digits: 7 })
  writeOctal(block, fields.owner, { value: 0, digits: 7 })
  writeOctal(block, fields.group, { value: 0, digits: 7 })
  if (file.size < octalLimit) writeOctal(block, fields.size, { value: file.size, digits: 11 })
  else {
    block[fields.size] = 0x80
    block.writeBigUInt64BE(BigInt(file.size), fields.size + 4)
  }
  writeOctal(block, fields.time, { value: file.mtimeSeconds, digits: 11 })
  block.write(regularFile, fields.type, 'latin1')
  block.write(magic, magicAt, 'latin1')
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, fields.sum, 'latin1')
  return block
}

function writeOctal(block: Buffer, at: number, { value, digits }: { value: number; digits: number }): void {
  block.write(value.toString(8).padStart(digits, '0'), at, 'latin1')
}

function parseHeader(block: Buffer): { name: string; size: number } {
  const text = (at: number, length: number): string =>
    block.toString('utf8', at, at + length).replace(/\0.*$/s, '')
  if (Number.parseInt(text(fields.sum, 8), 8) !== checksum(block)) throw new Error('it has a damaged entry')
  const name = text(fields.name, 100)
  if (text(fields.type, 1) !== regularFile) throw new Error(`${name} in it is no plain file`)
  const isBinary = ((block[fields.size] ?? 0) & 0x80) !== 0
  const size = isBinary
    ? Number(block.readBigUInt64BE(fields.size + 4))
    : Number.parseInt(text(fields.size, 12), 8)
  if (!Number.isSafeInteger(size)) throw new Error(`${name} in it has no size`)
  return { name, size }
}

/** The sum of all bytes, with those of the sum itself taken for spaces. */
function checksum(block: Buffer): number {
  let sum = 0
  for (let at = 0; at < blockBytes; at++) {
    sum += at >= fields.sum && at < fields.type ? 0x20 : (block[at] as number)
  }
  return sum
}

function paddingOf(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes
}
