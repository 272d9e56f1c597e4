import type { DatabaseFile } from './inspect.ts'
import { openReadOnly } from './schema.ts'

/** What kube-apiserver writes before what it has encrypted: k8s:enc:PROVIDER:vN:KEY:... */
const prefix = Buffer.from('k8s:enc:')
/** More than it has. */
const headBytes = 200

export interface Encryption {
  readonly provider: string
  readonly keyName: string
}

/** With what a value is encrypted; undefined: it is in the clear. */
export function encryptionOfValue(value: Buffer): Encryption | undefined {
  if (!value.subarray(0, prefix.length).equals(prefix)) return undefined
  const [provider = '', , keyName = ''] = value.toString('latin1', prefix.length, headBytes).split(':')
  return { provider, keyName }
}

/**
 * With what some value of the database is encrypted: the provider and the name of its key, which the encryption
 * configuration has. undefined: none is. Not for the process that serves the database: fcntl(2) would drop its locks.
 */
export function encryptionOf(file: DatabaseFile): Encryption | undefined {
  const database = openReadOnly(file)
  try {
    const head = database
      .prepare('SELECT substr(value, 1, ?) FROM value WHERE substr(value, 1, ?) = ? LIMIT 1')
      .pluck()
      .get(headBytes, prefix.length, prefix) as Buffer | undefined
    return head === undefined ? undefined : encryptionOfValue(head)
  } finally {
    database.close()
  }
}
