import type { DatabaseFile } from './inspect.ts'
import { openReadOnly } from './schema.ts'

/** What kube-apiserver writes before what it has encrypted: k8s:enc:PROVIDER:vN:KEY:... */
const prefix = Buffer.from('k8s:enc:')
const headBytes = 100

/**
 * With what some value of the database is encrypted: the provider and the name of its key, which the encryption
 * configuration has. undefined: none is. Not for the process that serves the database: fcntl(2) would drop its locks.
 */
export function encryptionOf(file: DatabaseFile): { provider: string; keyName: string } | undefined {
  const database = openReadOnly(file)
  try {
    const head = database
      .prepare('SELECT substr(value, 1, ?) FROM value WHERE substr(value, 1, ?) = ? LIMIT 1')
      .pluck()
      .get(headBytes, prefix.length, prefix) as Buffer | undefined
    if (head === undefined) return undefined
    const [provider = '', , keyName = ''] = head.toString('latin1', prefix.length).split(':')
    return { provider, keyName }
  } finally {
    database.close()
  }
}
