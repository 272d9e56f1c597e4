import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { AppError } from '../../base/errors.ts'
import { file as fileKind } from '../../config/table/kinds.ts'
import type { EncryptedValues, EncryptionConfiguration } from '../../datastore/transfer/encrypted.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { databaseOf } from './database.ts'

const ownOptions = {
  'encryption-config': {
    group: 'Importing',
    description:
      'The encryption configuration of the cluster, where it has encrypted Secrets; k3s keeps it in server/cred/encryption-config.json.',
    kind: fileKind,
  },
}

export const dbImportKine: Command = {
  name: 'db import-kine',
  description: "Make a datastore of a kine's SQLite database, such as that of k3s.",
  details: `Keys, revisions and history stay the same. What k3s keeps for itself below /bootstrap is left out.
There must be no datastore yet, and the k3s must have stopped. The encryption configuration becomes this
cluster's, with a key of its own for what is written from now on; it must have none yet.`,
  examples: [
    {
      command:
        'k8s db import-kine /var/lib/rancher/k3s/server/db/state.db --encryption-config=/var/lib/rancher/k3s/server/cred/encryption-config.json',
      description: 'Go on with the data of a k3s on this machine',
    },
  ],
  operands: [{ placeholder: 'FILE', description: "kine's database, with its -wal beside it" }],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, operands, print } = invocation
  const { encryptionConfig } = optionValues(ownOptions, flags)
  const { pkiDir } = await pathsOf(invocation)
  const database = await databaseOf(invocation)
  const [{ importKine }, { secretFiles }] = await Promise.all([
    import('../../datastore/transfer/kine.ts'),
    import('../../pki/secrets.ts'),
  ])
  const { encryptionConfigFile: target } = secretFiles(pkiDir)
  const config =
    encryptionConfig === undefined ? undefined : await readConfiguration(encryptionConfig, target)
  const { report, bootstrapKeys } = await importKine({
    database,
    file: resolve(operands[0] ?? ''),
    onEncrypted: (found) => checkKeys(found, { config, from: encryptionConfig }),
    ...(config !== undefined && { beforeUse: () => writeConfiguration(config, target) }),
  })
  print(
    `${database.path} has ${report.keys} keys and ${report.leases} leases at revision ${report.revision}.\n`,
  )
  if (bootstrapKeys.length > 0) print(`Left out, as k3s' own: ${bootstrapKeys.join(', ')}.\n`)
  if (config !== undefined) print(`${target} has the keys of what is encrypted.\n`)
  return 0
}

async function readConfiguration(path: string, target: string): Promise<EncryptionConfiguration> {
  if (existsSync(target)) {
    throw new AppError(`cannot import: this cluster has an encryption configuration already, ${target}`, {
      code: 'IMPORT_EXISTS',
      path: target,
      remedy: 'name another --data-dir, or move that file away',
    })
  }
  try {
    const { parse } = await import('yaml')
    const config = parse(await readFile(path, 'utf8')) as EncryptionConfiguration | null
    if (config?.kind !== 'EncryptionConfiguration' || !Array.isArray(config.resources))
      throw new Error('it is no EncryptionConfiguration')
    return config
  } catch (cause) {
    throw new AppError(`cannot use ${path}`, { code: 'IMPORT_ENCRYPTED', path }, { cause })
  }
}

async function checkKeys(
  found: EncryptedValues,
  { config, from }: { config: EncryptionConfiguration | undefined; from: string | undefined },
): Promise<void> {
  if (found.size === 0) return
  const { missingConfiguration, requireKeys } = await import('../../datastore/transfer/encrypted.ts')
  if (config === undefined || from === undefined) throw missingConfiguration(found)
  requireKeys(found, config, from)
}

async function writeConfiguration(config: EncryptionConfiguration, target: string): Promise<void> {
  const [{ withOwnKey }, { prepareParent, privateMode, writeFileAtomically }, { stringify }] =
    await Promise.all([
      import('../../datastore/transfer/encrypted.ts'),
      import('../../base/files.ts'),
      import('yaml'),
    ])
  await prepareParent(target)
  await writeFileAtomically(target, stringify(withOwnKey(config)), { mode: privateMode })
}
