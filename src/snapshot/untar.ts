import { tarBlockBytes, tarChecksum, tarFields, tarNameBytes, tarPadding, tarTypes } from '../base/tar.ts'
import { ByteReader } from './byte-reader.ts'

/*
 * Reads the plain files of a tar archive that anybody may have made: what is no plain file with a name of its own
 * and a size is refused. Names are for the reader to compare with those that it knows.
 */

const chunkBytes = 256 * 1024
/** What may follow the end: tar(1) fills its last record of 20 blocks. */
const trailingLimitBytes = 64 * 1024

export interface UntarredFile {
  readonly name: string
  readonly size: number
  /** To be read to its end before the next one. */
  readonly content: AsyncIterable<Buffer>
}

export async function* untar(chunks: AsyncIterable<Buffer>): AsyncGenerator<UntarredFile> {
  const reader = new ByteReader(chunks)
  const names = new Set<string>()
  for (;;) {
    const block = await reader.exactly(tarBlockBytes)
    if (isZero(block)) return checkEnd(reader)
    const { name, size } = parseHeader(block)
    if (names.has(name)) throw new Error(`it has ${printable(name)} twice`)
    names.add(name)
    yield { name, size, content: contentOf(reader, size) }
    if (!isZero(await reader.exactly(tarPadding(size))))
      throw new Error(`what follows ${printable(name)} in it is damaged`)
  }
}

/** Only the end of the stream shows that nothing was cut away. */
async function checkEnd(reader: ByteReader): Promise<void> {
  const rest = await reader.upTo(trailingLimitBytes + 1)
  if (rest.length > trailingLimitBytes || !isZero(rest)) throw new Error('it goes on after its end')
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

function parseHeader(block: Buffer): { name: string; size: number } {
  if (octal(block, tarFields.sum, 8) !== tarChecksum(block)) throw new Error('it has a damaged entry')
  const text = block.toString('utf8', tarFields.name, tarFields.name + tarNameBytes).replace(/\0.*$/s, '')
  const name = printable(text)
  if (block.toString('latin1', tarFields.type, tarFields.type + 1) !== tarTypes.file)
    throw new Error(`${name} in it is no plain file`)
  if (block[tarFields.prefix] !== 0) throw new Error(`${name} in it has a longer name`)
  const size = sizeOf(block)
  if (size === undefined) throw new Error(`${name} in it has no size`)
  return { name: text, size }
}

function sizeOf(block: Buffer): number | undefined {
  if (block[tarFields.size] !== 0x80) return octal(block, tarFields.size, 12)
  const high = block.subarray(tarFields.size + 1, tarFields.size + 4)
  const size = Number(block.readBigUInt64BE(tarFields.size + 4))
  return isZero(high) && Number.isSafeInteger(size) ? size : undefined
}

/** Digits that end with a NUL, a space or the field. */
function octal(block: Buffer, at: number, length: number): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(block.toString('latin1', at, at + length))?.[1]
  return digits === undefined ? undefined : Number.parseInt(digits, 8)
}

/** As it may be shown on a terminal. */
export function printable(text: string): string {
  return /^[\x21-\x7e]+$/.test(text) ? text : JSON.stringify(text).replaceAll(/[^\x20-\x7e]/g, '?')
}
