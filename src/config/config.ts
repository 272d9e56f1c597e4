import type { ClusterSettings } from './settings/cluster.ts'
import type { ComponentsSettings } from './settings/components.ts'
import type { LoggingSettings } from './settings/logging.ts'
import type { NetworkSettings } from './settings/network.ts'
import type { NodeSettings } from './settings/node.ts'
import type { ServerSettings } from './settings/server.ts'
import type { SnapshotSettings } from './settings/snapshots.ts'
import type { StorageSettings } from './settings/storage.ts'

/**
 * Everything that a user decides, checked and complete: `loadConfig` yields it frozen, and nothing
 * else builds one. A field is its flag's name in camel case.
 */
export interface Config
  extends ClusterSettings,
    StorageSettings,
    ServerSettings,
    NodeSettings,
    NetworkSettings,
    ComponentsSettings,
    SnapshotSettings,
    LoggingSettings {}
