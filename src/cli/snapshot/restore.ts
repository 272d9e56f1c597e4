import { storageIn } from '../../config/facts.ts'
import { type Command, type Invocation, requirePayload } from '../command.ts'
import { requireOwnStorage } from '../daemon.ts'
import { placeOptions, secretOf, secretOption, snapshotSettings } from './place.ts'

export const snapshotRestore: Command = {
  name: 'snapshot restore',
  description: 'Put a snapshot in the place of the datastore and the keys of the cluster.',
  details: `Refuses while the daemon runs. Checks the whole snapshot before it replaces anything, and keeps what
was there in replaced/ of the data directory. The revision goes on far beyond that of the snapshot and of
the former datastore, and all before it counts as compacted, so that clients that have seen more than the
snapshot has list everything anew.`,
  examples: [
    {
      command: 'k8s stop && k8s snapshot restore scheduled-node-1-20261121T120000Z.tar.zst',
      description: 'Go back to a snapshot of the schedule',
    },
    { command: 'k8s snapshot restore /mnt/copy.tar.zst', description: 'Go on with one from elsewhere' },
  ],
  operands: [{ placeholder: 'SNAPSHOT', description: 'a file, or a name that k8s snapshot ls prints' }],
  options: { ...placeOptions, ...secretOption },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { operands, environment, print } = invocation
  const settings = await snapshotSettings(invocation)
  const { paths, dir } = settings
  requireOwnStorage(
    paths,
    'restore a snapshot',
    storageIn(paths.dataDir) === 'etcd-member'
      ? 'put it in the place of this etcd with k8s cluster reset --from-snapshot, or restore it into another --data-dir as a cluster of one server'
      : 'restore it into another --data-dir as a cluster of one server',
  )
  requirePayload(environment)
  const [{ refuseWhileRunning }, { openPayload }, { restoreSnapshot, snapshotPath }, { untilDecided }] =
    await Promise.all([
      import('../../control/client.ts'),
      import('../../payload/payload.ts'),
      import('../../snapshot/restore.ts'),
      import('../../snapshot/full-disk.ts'),
    ])
  await refuseWhileRunning(paths.controlSocket, 'restore')
  const given = {
    paths,
    nativeBinding: openPayload(environment['K8S_PAYLOAD_DIR']).sqliteAddon,
    file: snapshotPath(operands[0] ?? '', dir),
    secret: await secretOf(settings),
  }
  const { revision, snapshotRevision, replaced } = await untilDecided(
    { action: 'restore the snapshot', paths },
    () => restoreSnapshot(given),
  )
  print(`Restored revision ${snapshotRevision}; the datastore goes on at ${revision}.\n`)
  if (replaced !== undefined) print(`What was there before is in ${replaced}.\n`)
  return 0
}
