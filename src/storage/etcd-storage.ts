import { stat } from 'node:fs/promises'
import { assert } from '../base/errors.ts'
import type { Component } from '../components/component.ts'
import { saveSnapshot } from './save-snapshot.ts'
import type { Storage, StorageOptions } from './storage.ts'

/** What every etcd has in common for the rest of the daemon, whoever runs it. */
export function etcdStorage(options: StorageOptions, components: readonly Component[]): Storage {
  const { config, paths, pki } = options
  const { etcdPrefix } = config
  assert(etcdPrefix !== undefined, 'a server of another mode has no such storage')
  return {
    components,
    apiserverFlags: { 'etcd-servers': `unix://${paths.datastoreSocket}`, 'etcd-prefix': etcdPrefix },
    mayBeAway: true,
    failed: new Promise(() => {}),
    ping: async () => {},
    snapshots: {
      // Made with the cluster, and never again.
      createdAt: async () => (await stat(pki.authorities.server.keyFile)).birthtime,
      save: (name, signal) => saveSnapshot(options, name, signal),
    },
  }
}
