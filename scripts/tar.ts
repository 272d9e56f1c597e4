/** Writes POSIX tar archives that are the same, byte for byte, whenever and wherever they are made. */

const blockBytes = 512

export type TarEntry =
  | { readonly path: string; readonly type: 'directory'; readonly mode: number }
  | { readonly path: string; readonly type: 'file'; readonly mode: number; readonly content: Buffer }
  | { readonly path: string; readonly type: 'symlink'; readonly target: string }

const typeFlags = { file: '0', symlink: '2', directory: '5' } as const

/** The archive as buffers in order; files are owned by root and dated 1970. */
export function tar(entries: readonly TarEntry[]): Buffer[] {
  const parts: Buffer[] = []
  for (const entry of entries) {
    parts.push(header(entry))
    if (entry.type === 'file') {
      parts.push(entry.content, Buffer.alloc(-entry.content.length & (blockBytes - 1)))
    }
  }
  parts.push(Buffer.alloc(2 * blockBytes))
  return parts
}

function header(entry: TarEntry): Buffer {
  const block = Buffer.alloc(blockBytes)
  const sizeBytes = entry.type === 'file' ? entry.content.length : 0
  const target = entry.type === 'symlink' ? entry.target : ''
  for (const text of [entry.path, target]) {
    // Names are ours and short; the prefix field of ustar is left alone.
    if (Buffer.byteLength(text) > 99) throw new Error(`cannot archive ${text}: longer than 99 bytes`)
  }
  block.write(entry.path, 0)
  block.write(octal(entry.type === 'symlink' ? 0o777 : entry.mode, 7), 100)
  block.write(octal(0, 7), 108)
  block.write(octal(0, 7), 116)
  block.write(octal(sizeBytes, 11), 124)
  block.write(octal(0, 11), 136)
  block.write('        ', 148)
  block.write(typeFlags[entry.type], 156)
  block.write(target, 157)
  block.write('ustar\x0000', 257)
  const checksum = block.reduce((sum, byte) => sum + byte, 0)
  block.write(`${octal(checksum, 6)}\0 `, 148)
  return block
}

const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0')
