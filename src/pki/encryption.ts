import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { AppError } from '../base/errors.ts'
import { privateMode, writeFileAtomically } from '../base/files.ts'
import { renderYaml } from '../base/yaml.ts'

/*
 * kube-apiserver's encryption configuration in the form that is ours: Secrets are encrypted by secretbox with the first key, and
 * read with any of them; identity reads what was written in the clear.
 *
 * A rotation, of which each line is read by the API server before the next one is written:
 *
 *    key-1                 as it was
 *    key-1, key-2          what others will write can be read
 *    key-2, key-1          what is written now has the new key; all Secrets are written again
 *
 * The old key stays until the next rotation begins: a snapshot that was begun before has values that need it.
 */

/** crypto_secretbox's key size. */
const keyBytes = 32

export interface EncryptionKey {
  /** key-1, with a larger number at each rotation. */
  readonly name: string
  readonly secret: string
}

export function newEncryptionKey(keys: readonly EncryptionKey[]): EncryptionKey {
  const number = Math.max(0, ...keys.map(numberOf)) + 1
  return { name: `key-${number}`, secret: randomBytes(keyBytes).toString('base64') }
}

/** Whether a rotation has made a key that nothing is written with yet. */
export function isPrepared([first, ...others]: readonly EncryptionKey[]): boolean {
  return first !== undefined && others.some((key) => numberOf(key) > numberOf(first))
}

/** Durable before it has its name: what is encrypted with a key that is lost is lost. */
export async function writeEncryptionKeys(path: string, keys: readonly EncryptionKey[]): Promise<void> {
  await writeFileAtomically(path, renderEncryptionKeys(keys), { mode: privateMode, durable: 'contents' })
}

/** The keys in their order. Rejects with ENCRYPTION_FORM where somebody has given the file another form. */
export async function readEncryptionKeys(path: string): Promise<EncryptionKey[]> {
  const keys = parseEncryptionKeys(await readFile(path, 'utf8'))
  if (keys !== undefined) return keys
  throw new AppError(`cannot use the keys in ${path}: the file was changed by hand`, {
    code: 'ENCRYPTION_FORM',
    path,
    remedy:
      'rotate them by hand, too, as the documentation of Kubernetes describes it (Encrypting Confidential Data at Rest)',
  })
}

/** undefined: it has another form. */
export function parseEncryptionKeys(text: string): EncryptionKey[] | undefined {
  const keys = [...text.matchAll(/^ *- name: (key-\d+)\n *secret: (?:"([^"]+)"|(\S+))$/gm)].map(
    ([, name = '', quoted, plain]) => ({ name, secret: quoted ?? plain ?? '' }),
  )
  return keys.length > 0 && renderEncryptionKeys(keys) === text ? keys : undefined
}

export function renderEncryptionKeys(keys: readonly EncryptionKey[]): string {
  const secretbox = { keys: keys.map(({ name, secret }) => ({ name, secret })) }
  return renderYaml({
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'EncryptionConfiguration',
    resources: [{ resources: ['secrets'], providers: [{ secretbox }, { identity: {} }] }],
  })
}

function numberOf({ name }: EncryptionKey): number {
  return Number(name.slice(name.lastIndexOf('-') + 1))
}
