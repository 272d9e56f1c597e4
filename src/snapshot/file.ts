import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib'
import { AppError, describeError } from '../base/errors.ts'
import { privateMode } from '../base/files.ts'
import { deriveKey, type KeyDerivation, newDerivation, seal, unseal } from './seal.ts'
import { packTar, type TarEntry, type TarFile, unpackTar } from './tar.ts'

/*
 * A snapshot file:
 *
 *    header   a skippable frame of zstd (RFC 8878, 3.1.2) with JSON
 *    body     the tar archive in one frame of zstd; that in sealed chunks (seal.ts) where there is a secret
 *    digest   a skippable frame with the SHA-256 of everything before these 32 bytes
 *
 * One that is not sealed is unpacked by `zstd -d | tar -x` too.
 */

const headerMagic = 0x184d2a50
const digestMagic = 0x184d2a51
const frameHeadBytes = 8
const digestBytes = 32
const headerLimit = 64 * 1024
const format = 'k8s snapshot'
const formatVersion = 1
const compressionLevel = 3

/** What can be read of a snapshot without its secret. */
export interface SnapshotHeader {
  /** ISO 8601 */
  readonly createdAt: string
  /** Of k8s. */
  readonly version: string
  readonly revision: number
  readonly keys: number
  readonly sealed: KeyDerivation | null
}

export type Contents = Omit<SnapshotHeader, 'sealed'>

/** Writes the file, which must not exist, and brings it to the disk. After a failure it does not exist. */
export async function writeSnapshotFile(
  path: string,
  { contents, files, secret }: { contents: Contents; files: readonly TarFile[]; secret: string | undefined },
): Promise<void> {
  const sealed = secret === undefined ? null : newDerivation()
  const header = encodeHeader({ ...contents, sealed })
  const key = secret === undefined || sealed === null ? undefined : await deriveKey(secret, sealed)
  const { ZSTD_c_compressionLevel: level, ZSTD_c_checksumFlag: checksum } = constants
  const compress = createZstdCompress({ params: { [level]: compressionLevel, [checksum]: 1 } })
  try {
    await pipeline(
      () => packTar(files),
      compress,
      (body: AsyncIterable<Buffer>) => framed(header, key === undefined ? body : seal(body, { key, header })),
      createWriteStream(path, { flags: 'wx', mode: privateMode, flush: true }),
    )
  } catch (cause) {
    await rm(path, { force: true })
    throw new AppError(`cannot write the snapshot ${path}`, { code: 'SNAPSHOT_WRITE', path }, { cause })
  }
}

async function* framed(header: Buffer, body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const digest = createHash('sha256')
  const add = (bytes: Buffer): Buffer => {
    digest.update(bytes)
    return bytes
  }
  yield add(header)
  for await (const chunk of body) yield add(chunk)
  yield add(frameHead(digestMagic, digestBytes))
  yield digest.digest()
}

function encodeHeader(header: SnapshotHeader): Buffer {
  const text = Buffer.from(`${JSON.stringify({ format, formatVersion, ...header })}\n`)
  return Buffer.concat([frameHead(headerMagic, text.length), text])
}

function frameHead(magic: number, length: number): Buffer {
  const head = Buffer.alloc(frameHeadBytes)
  head.writeUInt32LE(magic, 0)
  head.writeUInt32LE(length, 4)
  return head
}

/** A snapshot file that was looked at; nothing is checked yet beyond its header. */
export interface SnapshotFile {
  readonly path: string
  readonly bytes: number
  readonly header: SnapshotHeader
  readonly headerFrame: Buffer
  /** As the file says, in hexadecimal. */
  readonly digest: string
}

export async function openSnapshotFile(path: string): Promise<SnapshotFile> {
  let file: FileHandle | undefined
  try {
    file = await open(path)
    const { size } = await file.stat()
    const read = async (position: number, length: number): Promise<Buffer> => {
      const { buffer, bytesRead } = await (file as FileHandle).read(Buffer.alloc(length), 0, length, position)
      if (bytesRead < length) throw new Error('it is no snapshot, or its end is missing')
      return buffer
    }
    const head = await read(0, frameHeadBytes)
    const length = head.readUInt32LE(4)
    if (head.readUInt32LE(0) !== headerMagic || length > headerLimit) throw new Error('it is no snapshot')
    const text = await read(frameHeadBytes, length)
    const header = parseHeader(text.toString('utf8'))
    const end = await read(size - digestBytes - frameHeadBytes, frameHeadBytes + digestBytes)
    if (!end.subarray(0, frameHeadBytes).equals(frameHead(digestMagic, digestBytes)))
      throw new Error('its end is missing')
    const digest = end.subarray(frameHeadBytes).toString('hex')
    return { path, bytes: size, header, headerFrame: Buffer.concat([head, text]), digest }
  } catch (cause) {
    throw unusable(path, cause)
  } finally {
    await file?.close()
  }
}

function parseHeader(text: string): SnapshotHeader {
  const header = JSON.parse(text) as SnapshotHeader & { format?: unknown; formatVersion?: unknown }
  if (header.format !== format) throw new Error('it is no snapshot')
  if (header.formatVersion !== formatVersion) {
    throw new Error(
      `its format is ${String(header.formatVersion)}; this version of k8s reads ${formatVersion}`,
    )
  }
  const { createdAt, version, revision, keys, sealed } = header
  return { createdAt, version, revision, keys, sealed }
}

/** Reads the whole file once and compares its digest. */
export async function checkDigest({ path, bytes, digest }: SnapshotFile): Promise<void> {
  const found = createHash('sha256')
  for await (const chunk of createReadStream(path, { end: bytes - digestBytes - 1 }))
    found.update(chunk as Buffer)
  if (found.digest('hex') !== digest) throw unusable(path, new Error('its digest is not that of its content'))
}

/** The files in it. What they contain can be trusted once all of them were read without an error. */
export async function* readSnapshotFile(
  { path, bytes, header, headerFrame }: SnapshotFile,
  secret: string | undefined,
): AsyncGenerator<TarEntry> {
  const { sealed } = header
  if (sealed !== null && secret === undefined) {
    throw new AppError(`cannot open the snapshot ${path}: it is sealed`, {
      code: 'SNAPSHOT_SECRET',
      path,
      remedy: 'name the file with its secret: --snapshot-secret-file',
    })
  }
  const end = bytes - digestBytes - frameHeadBytes - 1
  const body = createReadStream(path, { start: headerFrame.length, end })
  const decompress = createZstdDecompress()
  const unpacked = async function* (): AsyncGenerator<Buffer> {
    if (sealed === null || secret === undefined) yield* body as AsyncIterable<Buffer>
    else yield* unseal(body, { key: await deriveKey(secret, sealed), header: headerFrame })
  }
  const flow = pipeline(unpacked, decompress)
  // What is wrong shows to whoever reads, too.
  flow.catch(() => {})
  try {
    yield* unpackTar(decompress)
    await flow
  } catch (cause) {
    throw cause instanceof AppError ? cause : unusable(path, cause)
  } finally {
    body.destroy()
    decompress.destroy()
  }
}

function unusable(path: string, cause: unknown): AppError {
  return new AppError(`cannot use the snapshot ${path}: ${describeError(cause)}`, {
    code: 'SNAPSHOT_FILE',
    path,
    remedy: 'use another snapshot: k8s snapshot ls',
  })
}
