import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { allDone } from '../base/all-done.ts'
import { AppError } from '../base/errors.ts'
import {
  narrowMode,
  privateMode,
  publicMode,
  readFileIfPresent,
  writeFileAtomically,
  writeFileIfChanged,
} from '../base/files.ts'
import { exportKey } from './authority.ts'
import { newEncryptionKey, writeEncryptionKeys } from './encryption.ts'

export interface SecretFiles {
  /** Signs the tokens of service accounts. */
  readonly serviceAccountKeyFile: string
  readonly serviceAccountPublicKeyFile: string
  /** kube-apiserver's --encryption-provider-config. */
  readonly encryptionConfigFile: string
}

export function secretFiles(dir: string): SecretFiles {
  return {
    serviceAccountKeyFile: join(dir, 'service-account.key'),
    serviceAccountPublicKeyFile: join(dir, 'service-account.pub'),
    encryptionConfigFile: join(dir, 'encryption-config.yaml'),
  }
}

/**
 * Makes what is missing of the service accounts' key pair and the encryption key when `mayCreate`,
 * else a missing one is an error: tokens and Secrets that exist need the key they were made with.
 */
export async function prepareSecrets({ dir, mayCreate }: { dir: string; mayCreate: boolean }): Promise<void> {
  const files = secretFiles(dir)
  await allDone([
    prepareServiceAccountKey(files, mayCreate),
    prepareEncryptionConfig(files.encryptionConfigFile, mayCreate),
  ])
}

/** ES256: signed and made in a tenth of RS256's time, and known to every verifier of OIDC tokens that matters. */
async function prepareServiceAccountKey(files: SecretFiles, mayCreate: boolean): Promise<void> {
  const path = files.serviceAccountKeyFile
  let keyPem = await readFileIfPresent(path)
  if (keyPem === undefined) {
    if (!mayCreate) throw missing(path, 'the tokens of service accounts cannot be signed as before')
    keyPem = exportKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
    await writeFileAtomically(path, keyPem, { mode: privateMode, durable: 'contents' })
  } else {
    await narrowMode(path, privateMode)
  }
  const publicPem = publicKeyOf(path, keyPem)
  await writeFileIfChanged(files.serviceAccountPublicKeyFile, publicPem, {
    mode: publicMode,
    durable: 'contents',
  })
}

function publicKeyOf(path: string, keyPem: string): string {
  try {
    return createPublicKey(createPrivateKey(keyPem)).export({ type: 'spki', format: 'pem' }).toString()
  } catch (cause) {
    throw new AppError(
      `cannot use ${path}: it holds no private key`,
      { code: 'PKI_SECRET', path, remedy: 'restore the file from a backup' },
      { cause },
    )
  }
}

/** A file that is there is the user's to change (keys are rotated by adding one), so it is left as it is. */
async function prepareEncryptionConfig(path: string, mayCreate: boolean): Promise<void> {
  const text = await readFileIfPresent(path)
  if (text === undefined) {
    if (!mayCreate) throw missing(path, 'Secrets in the datastore cannot be read')
    return writeEncryptionKeys(path, [newEncryptionKey([])])
  }
  if (!/^kind: *EncryptionConfiguration$/m.test(text)) {
    throw new AppError(`cannot use ${path}: it is no EncryptionConfiguration`, {
      code: 'PKI_SECRET',
      path,
      remedy: 'restore the file from a backup',
    })
  }
  await narrowMode(path, privateMode)
}

function missing(path: string, consequence: string): AppError {
  return new AppError(`cannot find ${path}: without it ${consequence}`, {
    code: 'PKI_SECRET',
    path,
    remedy:
      'restore a snapshot that has it (k8s snapshot restore), or the file from a backup; or remove the whole cluster with `k8s reset`',
  })
}
