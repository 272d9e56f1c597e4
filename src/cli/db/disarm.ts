import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { askDatastore, endpointOptions } from './live.ts'

const ownOptions = endpointOptions('Disarming')

export const dbDisarm: Command = {
  name: 'db disarm',
  description: 'Lower the alarm NOSPACE, so that writes are taken again.',
  details: `A full disk or the quota raises it. Free space first, or make the quota larger: what is still full raises it again.
The one of a full disk is lowered by itself a few seconds after there is room.

A running datastore is asked to do it; without one, the file is opened for the time that it takes.`,
  examples: [
    { command: 'k8s db disarm', description: 'In the server' },
    {
      command: 'k8s db disarm --endpoint=http://127.0.0.1:2379',
      description: 'In a datastore that serves there',
    },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const endpoint = optionValues(ownOptions, invocation.flags)
  const { disarmDatastore } = await import('../../datastore/disarm.ts')
  const wasRaised = await askDatastore(invocation, { ...endpoint, verb: 'disarm' }, disarmDatastore)
  invocation.print(wasRaised ? 'Lowered the alarm NOSPACE.\n' : 'There is no alarm.\n')
  return 0
}
