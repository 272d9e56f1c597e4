import type { RoleName } from './roles.ts'
import { clusterSettings } from './settings/cluster.ts'
import { componentsSettings } from './settings/components.ts'
import { etcdSettings } from './settings/etcd.ts'
import { joinSettings } from './settings/join.ts'
import { kubeletSettings } from './settings/kubelet.ts'
import { loggingSettings } from './settings/logging.ts'
import { metricsSettings } from './settings/metrics.ts'
import { networkSettings } from './settings/network.ts'
import { nodeSettings } from './settings/node.ts'
import { roleSettings } from './settings/role.ts'
import { serverSettings } from './settings/server.ts'
import { snapshotsSettings } from './settings/snapshots.ts'
import { storageSettings } from './settings/storage.ts'
import type { Row } from './settings/rows.ts'
import type { OptionTable } from './table/option.ts'

/**
 * Every setting there is, in the order of help and documentation. Flags, environment names, file keys,
 * help and documentation come from here; a new one is a field and a row in the file of its subject.
 */
export const schema = {
  ...roleSettings,
  ...joinSettings,
  ...clusterSettings,
  ...storageSettings,
  ...etcdSettings,
  ...serverSettings,
  ...nodeSettings,
  ...kubeletSettings,
  ...networkSettings,
  ...componentsSettings,
  ...snapshotsSettings,
  ...loggingSettings,
  ...metricsSettings,
}

export type Schema = typeof schema
export type SettingName = keyof Schema

/** The settings that any of these roles has. */
export function settingsOf(...names: readonly RoleName[]): OptionTable {
  return Object.fromEntries(
    Object.entries(schema).filter(([, { roles }]) => names.some((name) => roles.includes(name))),
  )
}

/** undefined when there is no such setting. */
export function rowOf(name: string): Row | undefined {
  return Object.hasOwn(schema, name) ? schema[name as SettingName] : undefined
}
