import { createHash } from 'node:crypto'
import { chmod, constants, copyFile, type FileHandle, open, rename, rm } from 'node:fs/promises'
import { AppError } from '../base/errors.ts'

/**
 * The end of an artifact: struct footer of components/launcher/launcher.h. Numbers are little-endian.
 *
 *    section count 4 | reserved 4 | 8 x (offset 8, size 8, unpacked size 8, SHA-256 32) | payload id 32 | magic 16
 */
const sectionsLimit = 8
const sectionBytes = 3 * 8 + 32
const headBytes = 8
const identityAt = headBytes + sectionsLimit * sectionBytes
const footerBytes = identityAt + 32 + 16
const magic = 'k8s payload v1\n\0'

/** Read at a time, into the same memory: streams would leave a new part for each 64 KiB, and malloc keep 30 MB of them for good. */
const partBytes = 1 << 20

/** A payload is named by these digits of its id. */
const payloadIdDigits = 16

interface Footer {
  readonly payloadId: string
  readonly sections: readonly { readonly offset: number; readonly size: number; readonly digest: string }[]
}

/**
 * Copies the artifact of a payload to `target`, where it appears whole and verified, mode 0755. Throws where the file at
 * `source` is that of another payload by now, or damaged; then there is nothing at `target`.
 */
export async function copyArtifact(given: {
  source: string
  target: string
  payloadId: string
}): Promise<void> {
  const { source, target, payloadId } = given
  const unfinished = `${target}.${process.pid}.tmp`
  try {
    await copyFile(source, unfinished, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
    await verifyArtifact(unfinished, payloadId)
    // Whatever the umask and the source's mode are.
    await chmod(unfinished, 0o755)
    await rename(unfinished, target)
  } finally {
    await rm(unfinished, { force: true })
  }
}

async function verifyArtifact(path: string, payloadId: string): Promise<void> {
  await using file = await open(path)
  const footer = await readFooter(file)
  if (footer?.payloadId !== payloadId) {
    throw new AppError(`cannot take ${path} for the artifact of ${payloadId}: it is another file by now`, {
      code: 'ARTIFACT_REPLACED',
    })
  }
  for (const { offset, size, digest } of footer.sections) {
    if ((await digestOf(file, offset, size)) === digest) continue
    throw new AppError(`cannot keep ${path}: it is damaged`, { code: 'ARTIFACT_DAMAGED' })
  }
  await file.sync()
}

async function digestOf(file: FileHandle, offset: number, size: number): Promise<string> {
  const hash = createHash('sha256')
  const part = Buffer.allocUnsafe(Math.min(partBytes, size))
  for (let done = 0; done < size; ) {
    const { bytesRead } = await file.read(part, 0, Math.min(part.length, size - done), offset + done)
    if (bytesRead === 0) break
    hash.update(part.subarray(0, bytesRead))
    done += bytesRead
  }
  return hash.digest('hex')
}

async function readFooter(file: FileHandle): Promise<Footer | undefined> {
  const { size } = await file.stat()
  if (size < footerBytes) return undefined
  const { buffer } = await file.read(Buffer.alloc(footerBytes), 0, footerBytes, size - footerBytes)
  if (buffer.toString('latin1', footerBytes - 16) !== magic) return undefined
  const count = Math.min(buffer.readUInt32LE(0), sectionsLimit)
  const sections = Array.from({ length: count }, (_, index) => {
    const at = headBytes + index * sectionBytes
    return {
      offset: Number(buffer.readBigUInt64LE(at)),
      size: Number(buffer.readBigUInt64LE(at + 8)),
      digest: buffer.toString('hex', at + 24, at + sectionBytes),
    }
  })
  return {
    payloadId: buffer.toString('hex', identityAt, identityAt + 32).slice(0, payloadIdDigits),
    sections,
  }
}
