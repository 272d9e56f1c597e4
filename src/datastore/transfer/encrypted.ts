import { createDecipheriv, randomBytes } from 'node:crypto'

import { AppError } from '../../base/errors.ts'

/**
 * What a kube-apiserver has encrypted: k8s:enc:PROVIDER:vN:KEY:... One value for each key that encrypts any,
 * by "PROVIDER KEY". apiserver: pkg/server/options/encryptionconfig/config.go.
 */
export type EncryptedValues = Map<string, EncryptedValue>

interface EncryptedValue {
  readonly provider: string
  readonly keyName: string
  /** The key in the datastore, which GCM authenticates too. */
  readonly name: string
  readonly payload: Buffer
  count: number
}

const prefix = Buffer.from('k8s:enc:')
const pattern = /^k8s:enc:([a-z0-9]+):v\d+:([^:]*):/
const longestHead = 512
/** Not key-1, which another configuration may have, too. */
const ownKeyName = 'key-k8s'
const secretboxKeyBytes = 32
const blockBytes = 16
const gcm = { nonceBytes: 12, tagBytes: 16 } as const

export function noteEncrypted(
  found: EncryptedValues,
  { name, value }: { name: string; value: Buffer },
): void {
  if (!value.subarray(0, prefix.length).equals(prefix)) return
  const [head, provider, keyName] = pattern.exec(value.toString('latin1', 0, longestHead)) ?? []
  if (head === undefined || provider === undefined || keyName === undefined) return
  const id = `${provider} ${keyName}`
  const known = found.get(id)
  if (known !== undefined) known.count++
  else found.set(id, { provider, keyName, name, payload: Buffer.from(value.subarray(head.length)), count: 1 })
}

/** The parts of an EncryptionConfiguration that matter here. */
export interface EncryptionConfiguration {
  readonly kind: string
  readonly resources: readonly {
    readonly resources: readonly string[]
    readonly providers: readonly Readonly<
      Record<string, { readonly keys?: readonly NamedKey[]; readonly name?: string } | null>
    >[]
  }[]
}

interface NamedKey {
  readonly name: string
  readonly secret: string
}

/** Throws unless the configuration has every key, and those that can be tried here fit. */
export function requireKeys(found: EncryptedValues, config: EncryptionConfiguration, file: string): void {
  for (const value of found.values()) {
    const { provider, keyName, count } = value
    const secret = secretOf(config, value)
    if (secret === undefined) {
      throw refusal(`${file} has no key ${keyName} of ${provider}, with which ${count} values are encrypted`)
    }
    if (!fits(value, Buffer.from(secret, 'base64'))) {
      throw refusal(
        `the key ${keyName} of ${provider} in ${file} is not the one with which ${value.name} is encrypted`,
      )
    }
  }
}

/** What is written from now on gets a key of this cluster's own; the others stay for what is there. */
export function withOwnKey(config: EncryptionConfiguration): EncryptionConfiguration {
  const own = {
    secretbox: { keys: [{ name: ownKeyName, secret: randomBytes(secretboxKeyBytes).toString('base64') }] },
  }
  const resources = config.resources.map((group) => ({ ...group, providers: [own, ...group.providers] }))
  return { ...config, resources }
}

function refusal(reason: string): AppError {
  return new AppError(`cannot import: ${reason}`, {
    code: 'IMPORT_ENCRYPTED',
    remedy:
      'name the configuration that belongs to the data: k3s keeps it in server/cred/encryption-config.json of its data directory',
  })
}

/** That values are encrypted and nobody has said with what. */
export function missingConfiguration(found: EncryptedValues): AppError {
  const keys = [...found.values()].map(
    ({ provider, keyName, count }) => `${count} with the key ${keyName} of ${provider}`,
  )
  return new AppError(`cannot import: values are encrypted (${keys.join(', ')})`, {
    code: 'IMPORT_ENCRYPTED',
    remedy:
      'name the encryption configuration with --encryption-config; k3s keeps it in server/cred/encryption-config.json of its data directory',
  })
}

/** '' for a plugin, whose key is elsewhere. */
function secretOf(
  config: EncryptionConfiguration,
  { provider, keyName }: EncryptedValue,
): string | undefined {
  const providers = config.resources.flatMap((group) => group.providers)
  const settings = providers.flatMap((entry) => entry[provider] ?? [])
  if (provider === 'kms') return settings.some(({ name }) => name === keyName) ? '' : undefined
  return settings.flatMap(({ keys }) => keys ?? []).find(({ name }) => name === keyName)?.secret
}

/** Tries a key: aescbc and aesgcm show a wrong one; secretbox (XSalsa20) and plugins cannot be tried here. */
function fits({ provider, name, payload }: EncryptedValue, key: Buffer): boolean {
  if (provider !== 'aescbc' && provider !== 'aesgcm') return true
  try {
    const bits = key.length * 8
    if (provider === 'aescbc') {
      const opening = createDecipheriv(`aes-${bits}-cbc`, key, payload.subarray(0, blockBytes))
      opening.update(payload.subarray(blockBytes))
      opening.final()
      return true
    }
    const opening = createDecipheriv(
      `aes-${bits}-gcm` as 'aes-256-gcm',
      key,
      payload.subarray(0, gcm.nonceBytes),
    )
    opening.setAuthTag(payload.subarray(-gcm.tagBytes))
    opening.setAAD(Buffer.from(name))
    opening.update(payload.subarray(gcm.nonceBytes, -gcm.tagBytes))
    opening.final()
    return true
  } catch {
    return false
  }
}
