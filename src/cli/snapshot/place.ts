import { loadSettings, snapshotDirIn } from '../../config/load.ts'
import { type Paths, paths } from '../../config/paths.ts'
import { type SettingName, schema } from '../../config/schema.ts'
import { configOption, type Invocation } from '../command.ts'

/** Where snapshots are. What the server is told of them, these commands are told by the same settings. */
export const placeOptions = {
  ...configOption,
  'data-dir': schema['data-dir'],
  'snapshot-dir': schema['snapshot-dir'],
}
export const secretOption = { 'snapshot-secret-file': schema['snapshot-secret-file'] }
export const retentionOption = { 'snapshot-retention': schema['snapshot-retention'] }

const names = ['data-dir', 'snapshot-dir', 'snapshot-secret-file', 'snapshot-retention'] as const

interface SnapshotSettings {
  readonly paths: Paths
  readonly dir: string
  readonly secretFile: string | undefined
  readonly retention: number
}

/** No other setting is looked at: a restore works although somebody has broken one. */
export async function snapshotSettings({ flags, environment }: Invocation): Promise<SnapshotSettings> {
  const own: readonly SettingName[] = names
  const values = await loadSettings(names, {
    flags: flags.filter(({ name }) => name === 'config' || own.some((known) => known === name)),
    environment,
  })
  const dataDir = String(values['data-dir'])
  return {
    paths: paths({ dataDir }),
    dir: values['snapshot-dir'] ?? snapshotDirIn(dataDir),
    secretFile: values['snapshot-secret-file'],
    retention: Number(values['snapshot-retention']),
  }
}

export async function secretOf({ secretFile }: SnapshotSettings): Promise<string | undefined> {
  if (secretFile === undefined) return undefined
  const { readSecret } = await import('../../snapshot/seal.ts')
  return readSecret(secretFile)
}
