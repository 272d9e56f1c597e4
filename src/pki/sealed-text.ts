import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'

const cipher = 'aes-256-gcm'
const [ivBytes, tagBytes] = [12, 16]

/** By which it is longer than the text. */
export const sealedExtraBytes = ivBytes + tagBytes

/**
 * For who has the key, of 32 bytes: iv, ciphertext, tag (AES-256-GCM). It cannot stand in for one that is bound to another text than
 * `boundTo`, which is not in it.
 */
export function sealText(text: string, key: Buffer, boundTo = ''): Buffer {
  const iv = randomBytes(ivBytes)
  const sealing = createCipheriv(cipher, key, iv).setAAD(Buffer.from(boundTo))
  return Buffer.concat([iv, sealing.update(text), sealing.final(), sealing.getAuthTag()])
}

/** Throws when it was not sealed so. */
export function openText(sealed: Buffer, key: Buffer, boundTo = ''): string {
  const opening = createDecipheriv(cipher, key, sealed.subarray(0, ivBytes)).setAAD(Buffer.from(boundTo))
  opening.setAuthTag(sealed.subarray(-tagBytes))
  return Buffer.concat([opening.update(sealed.subarray(ivBytes, -tagBytes)), opening.final()]).toString()
}
