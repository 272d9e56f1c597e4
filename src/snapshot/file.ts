import { createHash } from 'node:crypto'
import { constants as fileConstants, createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { privateMode } from '../base/files.ts'
import { type TarFile, tarFiles } from '../base/tar.ts'
import { deriveKey, isDerivation, type KeyDerivation, newDerivation, seal, unseal } from './seal.ts'
import { printable, untar, type UntarredFile } from './untar.ts'

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

/** A list of names and numbers: a forged one may say anything else. */
const shownTextPattern = /^[\x20-\x7e]{1,200}$/

/** What can be read of a snapshot without its secret. */
export interface SnapshotHeader {
  /** ISO 8601 */
  readonly createdAt: string
  /** Of k8s. */
  readonly version: string
  readonly revision: number
  readonly keys: number
  /** The id of the cluster in its database; undefined in snapshots of earlier versions, and of what was never served. */
  readonly cluster?: string
  /** All files that are in it; undefined in snapshots of earlier versions. */
  readonly files?: readonly string[]
  readonly sealed: KeyDerivation | null
}

type Contents = Omit<SnapshotHeader, 'sealed' | 'files'>

/** Writes the file, which must not exist, and brings it to the disk. After a failure it does not exist. */
export async function writeSnapshotFile(
  path: string,
  { contents, files, secret }: { contents: Contents; files: readonly TarFile[]; secret: string | undefined },
): Promise<void> {
  const sealed = secret === undefined ? null : newDerivation()
  const header = encodeHeader({ ...contents, files: files.map(({ name }) => name), sealed })
  const key = secret === undefined || sealed === null ? undefined : await deriveKey(secret, sealed)
  const { ZSTD_c_compressionLevel: level, ZSTD_c_checksumFlag: checksum } = constants
  const compress = createZstdCompress({ params: { [level]: compressionLevel, [checksum]: 1 } })
  try {
    await pipeline(
      () => tarFiles(files),
      compress,
      (body: AsyncIterable<Buffer>) => framed(header, key === undefined ? body : seal(body, { key, header })),
      createWriteStream(path, { flags: 'wx', mode: privateMode, flush: true }),
    )
  } catch (cause) {
    // A file that was there before is somebody's.
    if (errorCode(cause) !== 'EEXIST') await rm(path, { force: true })
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
  yield add(digestFrameHead)
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

const digestFrameHead = frameHead(digestMagic, digestBytes)

/** A snapshot file that was looked at; nothing is checked yet beyond its header. */
export interface SnapshotFile {
  readonly path: string
  readonly bytes: number
  readonly header: SnapshotHeader
  readonly headerFrame: Buffer
  /** As the file says, in hexadecimal. */
  readonly digest: string
}

/** A file that is no plain one is not waited for. */
const openFlags = fileConstants.O_RDONLY | fileConstants.O_NONBLOCK

export async function openSnapshotFile(path: string): Promise<SnapshotFile> {
  let file: FileHandle | undefined
  try {
    file = await open(path, openFlags)
    const stats = await file.stat()
    if (!stats.isFile()) throw new Error('it is no plain file')
    const { size } = stats
    const read = async (position: number, length: number): Promise<Buffer> => {
      if (position < 0) throw new Error('it is no snapshot, or its end is missing')
      const { buffer, bytesRead } = await (file as FileHandle).read(Buffer.alloc(length), 0, length, position)
      if (bytesRead < length) throw new Error('it is no snapshot, or its end is missing')
      return buffer
    }
    const head = await read(0, frameHeadBytes)
    const length = head.readUInt32LE(4)
    if (head.readUInt32LE(0) !== headerMagic || length > headerLimit) throw new Error('it is no snapshot')
    const text = await read(frameHeadBytes, length)
    const header = parseHeader(text.toString('utf8'))
    const endAt = size - digestBytes - frameHeadBytes
    const end = await read(endAt, frameHeadBytes + digestBytes)
    if (endAt < frameHeadBytes + length || !end.subarray(0, frameHeadBytes).equals(digestFrameHead))
      throw new Error('its end is missing')
    const digest = end.subarray(frameHeadBytes).toString('hex')
    return { path, bytes: size, header, headerFrame: Buffer.concat([head, text]), digest }
  } catch (cause) {
    throw unusableSnapshot(path, cause)
  } finally {
    await file?.close()
  }
}

function parseHeader(text: string): SnapshotHeader {
  const header = JSON.parse(text) as Partial<
    Record<keyof SnapshotHeader | 'format' | 'formatVersion', unknown>
  >
  if (typeof header !== 'object' || header?.format !== format) throw new Error('it is no snapshot')
  if (header.formatVersion !== formatVersion) {
    const found = printable(String(header.formatVersion))
    throw new Error(`its format is ${found}; this version of k8s reads ${formatVersion}`)
  }
  const { createdAt, version, revision, keys, cluster, files, sealed } = header
  if (
    !isDate(createdAt) ||
    !isShownText(version) ||
    !isCount(revision) ||
    !isCount(keys) ||
    !(cluster === undefined || isShownText(cluster)) ||
    !(files === undefined || (Array.isArray(files) && files.every(isShownText))) ||
    !(sealed === null || isDerivation(sealed))
  ) {
    throw new Error('its header is damaged')
  }
  return {
    ...{ createdAt, version, revision, keys },
    ...(cluster !== undefined && { cluster }),
    ...(files !== undefined && { files }),
    sealed,
  }
}

function isShownText(value: unknown): value is string {
  return typeof value === 'string' && shownTextPattern.test(value)
}

function isDate(value: unknown): value is string {
  return isShownText(value) && !Number.isNaN(Date.parse(value))
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** Reads the whole file once and compares its digest. */
export async function checkDigest({ path, bytes, digest }: SnapshotFile): Promise<void> {
  const found = createHash('sha256')
  for await (const chunk of createReadStream(path, { end: bytes - digestBytes - 1 }))
    found.update(chunk as Buffer)
  if (found.digest('hex') !== digest) throw changed(path)
}

/**
 * The files in it. What they contain can be trusted once all of them were read without an error: the digest is
 * compared again with what was read, as somebody may have changed the file since `checkDigest`.
 */
export async function* readSnapshotFile(
  { path, bytes, header, headerFrame, digest }: SnapshotFile,
  secret: string | undefined,
): AsyncGenerator<UntarredFile> {
  const { sealed } = header
  refuseUnlessSealedAsSaid({ path, isSealed: sealed !== null, hasSecret: secret !== undefined })
  const end = bytes - digestBytes - frameHeadBytes - 1
  const found = createHash('sha256').update(headerFrame)
  const body =
    end < headerFrame.length ? Readable.from([]) : createReadStream(path, { start: headerFrame.length, end })
  const hashed = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      found.update(chunk)
      yield chunk
    }
  }
  const decompress = createZstdDecompress()
  const unpacked = async function* (): AsyncGenerator<Buffer> {
    if (sealed === null || secret === undefined) yield* hashed()
    else yield* unseal(hashed(), { key: await deriveKey(secret, sealed), header: headerFrame })
  }
  const flow = pipeline(unpacked, decompress)
  // What is wrong shows to whoever reads, too.
  flow.catch(() => {})
  try {
    yield* untar(decompress)
    await flow
    if (found.update(digestFrameHead).digest('hex') !== digest) throw changed(path)
  } catch (cause) {
    throw cause instanceof AppError ? cause : unusableSnapshot(path, cause)
  } finally {
    body.destroy()
    decompress.destroy()
  }
}

/** Whoever seals snapshots must not be given one that anybody could have made. */
function refuseUnlessSealedAsSaid(given: { path: string; isSealed: boolean; hasSecret: boolean }): void {
  const { path, isSealed, hasSecret } = given
  if (isSealed && !hasSecret) {
    throw new AppError(`cannot open the snapshot ${path}: it is sealed`, {
      code: 'SNAPSHOT_SECRET',
      path,
      remedy: 'name the file with its secret: --snapshot-secret-file',
    })
  }
  if (!isSealed && hasSecret) {
    throw new AppError(`cannot open the snapshot ${path}: it is not sealed, and a secret is named`, {
      code: 'SNAPSHOT_SECRET',
      path,
      remedy:
        'if you know who made it, restore it without snapshot-secret-file (--config=FILE names another file)',
    })
  }
}

function changed(path: string): AppError {
  return unusableSnapshot(path, new Error('its digest is not that of its content'))
}

export function unusableSnapshot(path: string, cause: unknown): AppError {
  return new AppError(`cannot use the snapshot ${path}: ${describeError(cause)}`, {
    code: 'SNAPSHOT_FILE',
    path,
    remedy: 'use another snapshot: k8s snapshot ls',
  })
}
