import { existsSync } from 'node:fs'
import { AppError } from '../base/errors.ts'
import { roleIn, storageIn } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { choice } from '../config/table/kinds.ts'
import { usageError } from '../config/table/setting.ts'
import { type Command, type Invocation, optionValues, requirePayload, requireRoot } from './command.ts'
import { daemonOptions, pathsOf } from './daemon.ts'
import { holdStopped } from './hold-stopped.ts'

const ownOptions = {
  to: {
    group: 'Migrating',
    description: 'The server-mode that the cluster has from then on.',
    kind: choice('ha', 'single'),
    defaultText: 'none: it has to be said',
  },
}

export const migrate: Command = {
  name: 'migrate',
  description:
    'Keep the cluster of a server alone in an etcd of the servers from now on, or the other way round.',
  details: `Wants the daemon stopped; pods and agents go on. Objects, their resource versions and the keys stay the
same, so that nobody has to list anything anew. What was there before is kept in replaced/ of the data
directory. Interrupted at any moment, the cluster is as it was or as it shall be, and the command may be
given again. A server goes back to being alone when it is the only member.`,
  examples: [
    {
      command: 'k8s stop && k8s migrate --to=ha && systemctl start k8s',
      description: 'Make a server alone the first of several',
    },
    { command: 'k8s stop && k8s migrate --to=single', description: 'Go back' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { environment, flags, print } = invocation
  const { to } = optionValues(ownOptions, flags)
  if (to === undefined) throw usageError('cannot migrate without --to: allowed is ha or single')
  const paths = await pathsOf(invocation)
  requireRoot('migrate')
  // What is decided and not carried out yet is finished first.
  if (isThere(paths, to) && !existsSync(paths.restoreDir)) return tellThere(invocation, to)
  requirePayload(environment)
  using held = await holdStopped(paths, environment, 'migrate')
  const { payload, finished } = held
  if (finished !== undefined) print(`Finished a ${finished} that was interrupted.\n`)
  if (isThere(paths, to)) return tellThere(invocation, to)
  const [{ migrateToHa, migrateToSingle }, { untilDecided }] = await Promise.all([
    import('../migration/migrate.ts'),
    import('../snapshot/full-disk.ts'),
  ])
  const run = to === 'ha' ? migrateToHa : migrateToSingle
  const { keys, revision, replaced } = await untilDecided({ action: 'migrate', paths }, () =>
    run({ paths, payload }),
  )
  const place = to === 'ha' ? `an etcd, in ${paths.memberDir}` : `a database, in ${paths.databaseDir}`
  print(`The cluster is kept in ${place}, from now on: ${keys} keys, revision ${revision}.\n`)
  if (replaced !== undefined) print(`What was there before is in ${replaced}; remove it when all is well.\n`)
  print(
    'Start k8s again. Where the configuration says another server-mode, leave that setting away, and those that belong to it.\n',
  )
  return 0
}

/** Throws where there is no way. */
function isThere(paths: Paths, to: 'ha' | 'single'): boolean {
  const { dataDir } = paths
  const role = roleIn(dataDir)
  if (role !== 'server') {
    throw new AppError(
      `cannot migrate: ${role === undefined ? `there is no cluster in ${dataDir}` : `${dataDir} is the data directory of the role ${role}`}`,
      { code: 'NO_CLUSTER', path: dataDir, remedy: 'name the --data-dir of a server' },
    )
  }
  const storage = storageIn(dataDir)
  if (storage === 'external-etcd') {
    throw new AppError('cannot migrate: the objects of this cluster are in an etcd that others run', {
      code: 'STORED_ELSEWHERE',
      remedy:
        'take a snapshot (k8s snapshot save) and restore it into another --data-dir as a cluster of one server, which can be migrated',
    })
  }
  return (storage === 'embedded') === (to === 'single')
}

function tellThere({ print }: Invocation, to: 'ha' | 'single'): number {
  print(`The cluster has server-mode ${to}.\n`)
  return 0
}
