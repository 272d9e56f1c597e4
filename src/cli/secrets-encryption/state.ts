import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { readFacts } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { schema } from '../../config/schema.ts'
import type * as Client from '../../client/client.ts'

/** What of the encryption of Secrets can be seen. */
export interface EncryptionState {
  /** In the order in which they are in the configuration: the first one is written with. */
  readonly keys: readonly { readonly name: string; readonly secrets: number }[]
  /** In the clear, or with a key that the configuration does not have. */
  readonly others: readonly { readonly name: string; readonly secrets: number }[]
  readonly isLoaded: boolean
}

export async function readState(paths: Paths, client: typeof Client): Promise<EncryptionState> {
  const [{ readEncryptionKeys }, { secretFiles }] = await Promise.all([
    import('../../pki/encryption.ts'),
    import('../../pki/secrets.ts'),
  ])
  const { encryptionConfigFile } = secretFiles(paths.pkiDir)
  const keys = await readEncryptionKeys(encryptionConfigFile)
  const counts = await countSecrets(paths)
  const known = new Set(keys.map(({ name }) => name))
  return {
    keys: keys.map(({ name }) => ({ name, secrets: counts.get(name) ?? 0 })),
    others: [...counts].filter(([name]) => !known.has(name)).map(([name, secrets]) => ({ name, secrets })),
    isLoaded:
      (await client.loadedEncryption(paths.adminKubeconfig)) === (await digestOf(encryptionConfigFile)),
  }
}

export async function countSecrets({
  dataDir,
  datastoreSocket,
}: Paths): Promise<ReadonlyMap<string, number>> {
  const { countByEncryptionKey } = await import('../../datastore/encrypted-values.ts')
  const prefix = readFacts(dataDir).cluster['etcd-prefix'] ?? schema['etcd-prefix'].default
  return countByEncryptionKey({ address: `unix://${datastoreSocket}` }, `${prefix}/secrets/`)
}

/** As kube-apiserver tells it of what it has loaded. */
export async function digestOf(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}
