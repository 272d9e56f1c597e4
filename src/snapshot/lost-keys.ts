import { existsSync, statSync } from 'node:fs'
import { AppError } from '../base/errors.ts'
import type { Paths } from '../config/paths.ts'
import { encryptionOf } from '../datastore/log/encrypted.ts'
import { secretFiles } from '../pki/secrets.ts'

/**
 * Throws KEYS_LOST where a database (one that was imported, or is left of a cluster) has encrypted values and the
 * configuration with their key is missing: a new one would make them unreadable for good. To be called before anything
 * opens the database.
 */
export function refuseLostKeys(
  { database, pkiDir }: Pick<Paths, 'database' | 'pkiDir'>,
  nativeBinding: string | undefined,
): void {
  const { encryptionConfigFile } = secretFiles(pkiDir)
  if (existsSync(encryptionConfigFile)) return
  if ((statSync(database, { throwIfNoEntry: false })?.size ?? 0) === 0) return
  const encryption = encryptionOf({ path: database, nativeBinding })
  if (encryption === undefined) return
  const { provider, keyName } = encryption
  throw new AppError(
    `cannot start: values in the database are encrypted with the key ${keyName} of ${provider}, and ${encryptionConfigFile} is missing`,
    {
      code: 'KEYS_LOST',
      path: encryptionConfigFile,
      remedy:
        'put the encryption configuration there with which they were written, or restore a snapshot that has it (k8s snapshot restore)',
    },
  )
}
