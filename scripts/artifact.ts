/** What stands behind the launcher in the artifact: struct section and struct footer of components/launcher/launcher.h. */
import { createHash } from 'node:crypto'

const sectionsLimit = 8
const sectionBytes = 3 * 8 + 32
const magic = 'k8s payload v1\n\0'

export interface Section {
  readonly unpackedBytes: number
  readonly content: Buffer
}

/** The sections begin at `firstOffset` of the file, one behind the other, and this after them. */
export function footer(sections: readonly Section[], firstOffset: number): Buffer {
  const bytes = Buffer.alloc(8 + sectionsLimit * sectionBytes + 32 + 16)
  const identity = createHash('sha256')
  bytes.writeUInt32LE(sections.length, 0)
  let offset = firstOffset
  sections.forEach(({ content, unpackedBytes }, index) => {
    const at = 8 + index * sectionBytes
    const digest = createHash('sha256').update(content).digest()
    bytes.writeBigUInt64LE(BigInt(offset), at)
    bytes.writeBigUInt64LE(BigInt(content.length), at + 8)
    bytes.writeBigUInt64LE(BigInt(unpackedBytes), at + 16)
    digest.copy(bytes, at + 24)
    identity.update(digest)
    offset += content.length
  })
  identity.digest().copy(bytes, 8 + sectionsLimit * sectionBytes)
  bytes.write(magic, bytes.length - 16, 'latin1')
  return bytes
}
