import { createCipheriv, createDecipheriv, randomBytes, scrypt as scryptCallback } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { AppError } from '../base/errors.ts'
import { ByteReader } from './byte-reader.ts'

/*
 * Sealing: AES-256-GCM in chunks, each with a tag of its own, so that nothing is passed on before it was
 * checked. A key seals one snapshot, so the nonce is the number of the chunk and whether it is the last
 * one: chunks cannot be taken away, repeated or reordered (the construction STREAM of Hoang, Reyhanitabar,
 * Rogaway and Vizár, 2015).
 *
 *    chunk: ciphertext length uint32 (little-endian), ciphertext, tag of 16 bytes
 */

const scrypt = promisify<string, Buffer, number, object, Buffer>(scryptCallback)
const cipher = 'aes-256-gcm'
const keyBytes = 32
const saltBytes = 32
const nonceBytes = 12
const tagBytes = 16
const chunkBytes = 64 * 1024
const shortestSecret = 16

/** How a key is made from the secret (RFC 7914); written beside what is sealed. */
export interface KeyDerivation {
  readonly kdf: 'scrypt'
  readonly salt: string
  readonly cost: number
  readonly blockSize: number
  readonly parallelization: number
}

/** 64 MB of memory and a tenth of a second for each guess. */
const defaults = { kdf: 'scrypt', cost: 2 ** 16, blockSize: 8, parallelization: 1 } as const
/** A forged header must not cost more. */
const memoryLimitBytes = 512 * 1024 * 1024

export function newDerivation(): KeyDerivation {
  return { ...defaults, salt: randomBytes(saltBytes).toString('base64') }
}

/** Whether something that was read is a derivation; its cost is for `deriveKey` to refuse. */
export function isDerivation(value: unknown): value is KeyDerivation {
  if (typeof value !== 'object' || value === null) return false
  const { kdf, salt, cost, blockSize, parallelization } = value as Partial<
    Record<keyof KeyDerivation, unknown>
  >
  const numbers = [cost, blockSize, parallelization]
  const isEach = numbers.every((number) => Number.isSafeInteger(number) && (number as number) > 0)
  return kdf === 'scrypt' && typeof salt === 'string' && isEach
}

export async function readSecret(path: string): Promise<string> {
  const secret = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new AppError(`cannot read the secret file ${path}`, { code: 'SNAPSHOT_SECRET', path }, { cause })
  })
  const trimmed = secret.trim()
  if (trimmed.length >= shortestSecret) return trimmed
  throw new AppError(
    `cannot use the secret file ${path}: it has ${trimmed.length} characters; allowed are ${shortestSecret} and more`,
    {
      code: 'SNAPSHOT_SECRET',
      path,
      remedy: `make one with: head -c 32 /dev/urandom | base64 >${path}`,
    },
  )
}

export async function deriveKey(secret: string, derivation: KeyDerivation): Promise<Buffer> {
  const { salt, cost, blockSize, parallelization } = derivation
  if (128 * cost * blockSize * parallelization > memoryLimitBytes) {
    throw new Error(`its key derivation needs more than ${memoryLimitBytes / 1024 ** 2} MB of memory`)
  }
  const options = { N: cost, r: blockSize, p: parallelization, maxmem: 2 * memoryLimitBytes }
  return scrypt(secret, Buffer.from(salt, 'base64'), keyBytes, options)
}

/** `header` is what the chunks are bound to. */
export async function* seal(
  plain: AsyncIterable<Buffer>,
  { key, header }: { key: Buffer; header: Buffer },
): AsyncGenerator<Buffer> {
  const reader = new ByteReader(plain)
  let chunk = await reader.upTo(chunkBytes)
  for (let number = 0; ; number++) {
    const next = await reader.upTo(chunkBytes)
    const isLast = next.length === 0
    const sealing = createCipheriv(cipher, key, nonceOf(number, isLast))
    sealing.setAAD(header)
    const sealed = Buffer.concat([sealing.update(chunk), sealing.final(), sealing.getAuthTag()])
    const length = Buffer.alloc(4)
    length.writeUInt32LE(chunk.length)
    yield Buffer.concat([length, sealed])
    if (isLast) return
    chunk = next
  }
}

export async function* unseal(
  sealed: AsyncIterable<Buffer>,
  { key, header }: { key: Buffer; header: Buffer },
): AsyncGenerator<Buffer> {
  const reader = new ByteReader(sealed)
  let prefix = await reader.exactly(4)
  for (let number = 0; ; number++) {
    const length = prefix.readUInt32LE()
    if (length > chunkBytes) throw new Error(`chunk ${number} is longer than a chunk can be`)
    const chunk = await reader.exactly(length + tagBytes)
    prefix = await reader.upTo(4)
    const isLast = prefix.length === 0
    if (!isLast && prefix.length < 4) throw new Error('it ends in the middle of a chunk')
    const opening = createDecipheriv(cipher, key, nonceOf(number, isLast))
    opening.setAAD(header)
    opening.setAuthTag(chunk.subarray(length))
    const plain = opening.update(chunk.subarray(0, length))
    try {
      opening.final()
    } catch {
      throw new AppError('cannot open the snapshot: the secret is another one, or the file was changed', {
        code: 'SNAPSHOT_SECRET',
        remedy: 'name the file with the secret that it was sealed with: --snapshot-secret-file',
      })
    }
    yield plain
    if (isLast) return
  }
}

function nonceOf(number: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(nonceBytes)
  nonce.writeBigUInt64BE(BigInt(number))
  nonce[nonceBytes - 1] = isLast ? 1 : 0
  return nonce
}
