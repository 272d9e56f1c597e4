import { integer } from '../../config/table/kinds.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { storageIn } from '../../config/facts.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { askDatastore, endpointOptions } from './live.ts'

const ownOptions = {
  revision: {
    group: 'Compacting',
    description: 'The history before this revision is removed; without it, all history is.',
    kind: integer({ from: 1, to: 9_999_999_999 }),
  },
  ...endpointOptions('Compacting'),
}

export const dbCompact: Command = {
  name: 'db compact',
  description: 'Remove history from the database, and give its space back.',
  details: `A running datastore is asked to do it while it serves; without one, the file is opened for the time that it takes.`,
  examples: [
    { command: 'k8s db compact', description: 'Keep the newest state of each key alone' },
    {
      command: 'k8s db compact --endpoint=http://127.0.0.1:2379 --revision=1000',
      description: 'Keep what happened since revision 1000, in a datastore that serves there',
    },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { revision, ...endpoint } = optionValues(ownOptions, invocation.flags)
  const { compactDatastore } = await import('../../datastore/compact.ts')
  // Each member of an etcd has a file of its own, and stands still while it is made smaller.
  const { dataDir } = await pathsOf(invocation)
  const defragment = endpoint.endpoint !== undefined || storageIn(dataDir) === 'embedded'
  const compacted = await askDatastore(invocation, { ...endpoint, verb: 'compact' }, (server) =>
    compactDatastore({ server, revision, defragment }),
  )
  invocation.print(`Compacted at revision ${compacted.revision}.\n`)
  return 0
}
