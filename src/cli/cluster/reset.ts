import { AppError } from '../../base/errors.ts'
import { roleIn, storageIn } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { boolean, file } from '../../config/table/kinds.ts'
import { Refused } from '../../config/table/option.ts'
import {
  type Command,
  type Invocation,
  optionValues,
  requirePayload,
  requireRoot,
  withoutOwn,
} from '../command.ts'
import { holdStopped } from '../hold-stopped.ts'
import { placeOptions, secretOf, secretOption, snapshotSettings } from '../snapshot/place.ts'

const ownOptions = {
  'from-snapshot': {
    group: 'Resetting',
    description: 'Go on with a snapshot: a file, or a name that k8s snapshot ls prints.',
    kind: {
      ...file,
      allowed: 'the path of a file, or a name',
      // A name is no path.
      parse: (text: string) => (/\p{Cc}/u.test(text) || text === '' ? new Refused() : text),
    },
    defaultText: 'what this server has itself',
  },
  'abandon-others': {
    group: 'Resetting',
    description:
      'Go on although other members serve, or this one had not caught up with them: what is not here is lost.',
    kind: boolean,
    default: false,
  },
}

export const clusterReset: Command = {
  name: 'cluster reset',
  description:
    'Make this server the only one of its cluster, where a majority of the servers is lost for good.',
  details: `Wants the daemon stopped. This server's member becomes the only one of a new etcd, by a snapshot that
is restored, with what it had, or with what a snapshot has; revisions go on far beyond all that clients
have seen. What was there before is kept in replaced/ of the data directory. The other servers are
members no more, whatever data they still have: when they come back, they put those aside, and join
again.`,
  examples: [
    { command: 'k8s stop && k8s cluster reset', description: 'Go on with what this server has' },
    {
      command: 'k8s cluster reset --from-snapshot=/mnt/scheduled-node-1-20261121T120000Z.tar.zst',
      description: 'Go on with a snapshot, where the data of this server are lost, too',
    },
  ],
  options: { ...ownOptions, ...placeOptions, ...secretOption },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { environment, flags, print } = invocation
  const { fromSnapshot, abandonOthers } = optionValues(ownOptions, flags)
  const settings = await snapshotSettings({ ...invocation, flags: withoutOwn(flags, ownOptions) })
  const { paths, dir } = settings
  requireRoot('reset the cluster')
  requireMember(paths)
  requirePayload(environment)
  using held = await holdStopped(paths, environment, 'reset the cluster')
  const { payload, finished } = held
  if (finished !== undefined) {
    print(`Finished a ${finished} that was interrupted.\n`)
    if (finished === 'reset') return 0
    requireMember(paths)
  }
  const [{ resetToOwnData, resetToSnapshot }, { snapshotPath }, { untilDecided }] = await Promise.all([
    import('../../migration/reset.ts'),
    import('../../snapshot/restore.ts'),
    import('../../snapshot/full-disk.ts'),
  ])
  const given = { paths, payload, abandonOthers }
  const action = 'reset the cluster'
  if (fromSnapshot === undefined) {
    const { others, replaced } = await untilDecided({ action, paths }, () => resetToOwnData(given))
    print(`This server is the only one of its cluster, with all that it had.\n`)
    if (others.length > 0) print(`No members any more: ${others.join(', ')}.\n`)
    tellReplaced(invocation, replaced)
    return 0
  }
  const file = snapshotPath(fromSnapshot, dir)
  const secret = await secretOf(settings)
  const reset = await untilDecided({ action, paths }, () => resetToSnapshot({ ...given, file, secret }))
  print(
    `This server is the only one of its cluster, with revision ${reset.snapshotRevision} of the snapshot; etcd goes on at ${reset.revision}.\n`,
  )
  tellReplaced(invocation, reset.replaced)
  return 0
}

function tellReplaced({ print }: Invocation, replaced: string | undefined): void {
  if (replaced !== undefined) print(`What was there before is in ${replaced}; remove it when all is well.\n`)
  print('Start k8s again, and then the other servers, which join again.\n')
}

function requireMember({ dataDir }: Paths): void {
  const storage = storageIn(dataDir)
  const isServer = roleIn(dataDir) === 'server'
  if (isServer && storage === 'etcd-member') return
  const [reason, remedy] = !isServer
    ? [
        `${dataDir} is no data directory of a server`,
        'where all servers are lost, restore a snapshot on a new machine (k8s snapshot restore), start it, and make it the first of several (k8s migrate --to=ha)',
      ]
    : storage === 'embedded'
      ? [
          'its one server keeps it in a database of its own',
          'go back to a snapshot with k8s snapshot restore; k8s reset removes the cluster from this machine',
        ]
      : ['it is kept in an etcd that others run', 'see etcdutl snapshot restore there']
  throw new AppError(`cannot reset the cluster: ${reason}`, { code: 'NO_ETCD_MEMBER', remedy })
}
