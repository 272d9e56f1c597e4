import { createHash, createPrivateKey, hkdfSync } from 'node:crypto'
import { AppError } from '../base/errors.ts'
import { parseEncryptionKeys } from './encryption.ts'
import { openText, sealText } from './sealed-text.ts'

/*
 * How servers of one cluster come to the same encryption keys, through the cluster itself:
 *
 *    kube-system/k8s-encryption     config           the configuration, sealed (sealed-text.ts) with what is derived from the key of the
 *                                                    server authority, which all servers have and nothing in the cluster does
 *                                   server.<name>    the digest of the configuration that the API server of this server has loaded
 *
 * Who rotates writes it, step by step, and waits each time until all servers have loaded it.
 */

export const sharedEncryption = { namespace: 'kube-system', name: 'k8s-encryption' } as const
export const configKey = 'config'
const serverPrefix = 'server.'

const keyBytes = 32
const purpose = 'k8s encryption configuration'

/** The key of a server's entry. */
export function entryOf(nodeName: string): string {
  return serverPrefix + nodeName
}

/** The digests of what servers have loaded, by their names; texts are in base64, as a Secret's are. */
export function loadedOf(data: Readonly<Record<string, string>> = {}): Map<string, string> {
  const entries = Object.entries(data).filter(([key]) => key.startsWith(serverPrefix))
  return new Map(
    entries.map(([key, value]) => [key.slice(serverPrefix.length), Buffer.from(value, 'base64').toString()]),
  )
}

/** As kube-apiserver tells it of what it has loaded. */
export function digestOfConfig(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

export function sealConfig(text: string, authorityKey: string): Buffer {
  return sealText(text, derived(authorityKey))
}

/** Throws ENCRYPTION_SHARED where it was not sealed by a server of this cluster. */
export function openConfig(sealed: Buffer, authorityKey: string): string {
  try {
    return openText(sealed, derived(authorityKey))
  } catch {
    throw new AppError(`cannot open the encryption configuration that the servers share`, {
      code: 'ENCRYPTION_SHARED',
      remedy: `somebody else has written the Secret ${sharedEncryption.namespace}/${sharedEncryption.name}: delete it`,
    })
  }
}

/**
 * Whether a server may go over from its own configuration to the one that is shared: not when that does not even read what the server
 * writes, as one that is left of long ago, or where somebody has changed the file by hand.
 */
export function mayFollow(own: string, shared: string): boolean {
  const [ownKeys, sharedKeys] = [own, shared].map(parseEncryptionKeys)
  const [written] = ownKeys ?? []
  return (
    written !== undefined &&
    (sharedKeys ?? []).some(({ name, secret }) => name === written.name && secret === written.secret)
  )
}

function derived(authorityKey: string): Buffer {
  const secret = createPrivateKey(authorityKey).export({ type: 'pkcs8', format: 'der' })
  return Buffer.from(hkdfSync('sha256', secret, '', purpose, keyBytes))
}
