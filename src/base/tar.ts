/*
 * Tar archives, written in one place: POSIX ustar, with GNU's base-256 numbers for sizes from 8 GiB on (tar(5)).
 * Files are owned by root. What reads them as hostile is snapshot/untar.ts.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'

export const tarBlockBytes = 512
export const tarFields = {
  name: 0,
  mode: 100,
  owner: 108,
  group: 116,
  size: 124,
  time: 136,
  sum: 148,
  type: 156,
  target: 157,
  magic: 257,
  prefix: 345,
} as const
export const tarTypes = { file: '0', symlink: '2', directory: '5' } as const
export const tarNameBytes = 100
const magic = 'ustar\x0000'
const octalSizeLimit = 8 ** 11
const symlinkMode = 0o777
const chunkBytes = 256 * 1024

export type TarEntry =
  | { readonly path: string; readonly type: 'directory'; readonly mode: number }
  | { readonly path: string; readonly type: 'file'; readonly mode: number; readonly content: Buffer }
  | { readonly path: string; readonly type: 'symlink'; readonly target: string }

/**
 * An archive that is the same, byte for byte, whenever and wherever it is made, as buffers in their order: all that is
 * in it is dated 1970.
 */
export function tar(entries: readonly TarEntry[]): Buffer[] {
  const parts = entries.flatMap((entry) => {
    const name = entry.path
    switch (entry.type) {
      case 'directory':
        return [header({ name, type: entry.type, mode: entry.mode })]
      case 'symlink':
        return [header({ name, type: entry.type, mode: symlinkMode, target: entry.target })]
      case 'file': {
        const { mode, content } = entry
        const head = header({ name, type: entry.type, mode, size: content.length })
        return [head, content, Buffer.alloc(tarPadding(content.length))]
      }
    }
  })
  return [...parts, endOfArchive()]
}

/** A file on the disk. */
export interface TarFile {
  /** In the archive. */
  readonly name: string
  readonly path: string
  readonly mode: number
}

/** An archive of files of any size; one that changes its size meanwhile is an error. */
export async function* tarFiles(files: readonly TarFile[]): AsyncGenerator<Buffer> {
  for (const { name, path, mode } of files) {
    const { size, mtimeMs } = await stat(path)
    yield header({ name, type: 'file', mode, size, mtimeSeconds: Math.floor(mtimeMs / 1000) })
    let read = 0
    for await (const chunk of createReadStream(path, {
      highWaterMark: chunkBytes,
    }) as AsyncIterable<Buffer>) {
      read += chunk.length
      yield chunk
    }
    if (read !== size) throw new Error(`${path} changed while it was read`)
    yield Buffer.alloc(tarPadding(size))
  }
  yield endOfArchive()
}

/** How many bytes follow the contents of a file. */
export function tarPadding(size: number): number {
  return (tarBlockBytes - (size % tarBlockBytes)) % tarBlockBytes
}

/** The sum of all bytes of a header, with those of the sum itself taken for spaces. */
export function tarChecksum(block: Buffer): number {
  let sum = 0
  for (let at = 0; at < tarBlockBytes; at++) {
    sum += at >= tarFields.sum && at < tarFields.type ? 0x20 : (block[at] as number)
  }
  return sum
}

function endOfArchive(): Buffer {
  return Buffer.alloc(2 * tarBlockBytes)
}

function header(entry: {
  name: string
  type: keyof typeof tarTypes
  mode: number
  size?: number
  mtimeSeconds?: number
  target?: string
}): Buffer {
  const { name, type, mode, size = 0, mtimeSeconds = 0, target = '' } = entry
  // Names are ours and short; the prefix field of ustar is left alone.
  for (const text of [name, target]) {
    if (Buffer.byteLength(text) > tarNameBytes)
      throw new Error(`cannot archive ${text}: longer than ${tarNameBytes} bytes`)
  }
  const block = Buffer.alloc(tarBlockBytes)
  block.write(name, tarFields.name, 'utf8')
  writeOctal(block, tarFields.mode, { value: mode, digits: 7 })
  writeOctal(block, tarFields.owner, { value: 0, digits: 7 })
  writeOctal(block, tarFields.group, { value: 0, digits: 7 })
  if (size < octalSizeLimit) writeOctal(block, tarFields.size, { value: size, digits: 11 })
  else {
    block[tarFields.size] = 0x80
    block.writeBigUInt64BE(BigInt(size), tarFields.size + 4)
  }
  writeOctal(block, tarFields.time, { value: mtimeSeconds, digits: 11 })
  block.write(tarTypes[type], tarFields.type, 'latin1')
  block.write(target, tarFields.target, 'utf8')
  block.write(magic, tarFields.magic, 'latin1')
  block.write(`${tarChecksum(block).toString(8).padStart(6, '0')}\0 `, tarFields.sum, 'latin1')
  return block
}

function writeOctal(block: Buffer, at: number, { value, digits }: { value: number; digits: number }): void {
  block.write(value.toString(8).padStart(digits, '0'), at, 'latin1')
}
