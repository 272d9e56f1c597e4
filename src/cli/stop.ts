import { errorCode } from '../base/errors.ts'
import { roleIn } from '../config/facts.ts'
import { boolean } from '../config/table/kinds.ts'
import { type Command, type Invocation, optionValues } from './command.ts'
import { daemonOptions, pathsOf } from './daemon.ts'

const ownOptions = {
  pods: {
    group: 'Stopping',
    description: 'End the pods, too, each with its own grace period.',
    kind: boolean,
    default: false,
  },
}

export const stop: Command = {
  name: 'stop',
  description: 'Stop the daemon and its components; pods keep running unless --pods is given.',
  details:
    'Returns when everything has stopped; asked for twice, it kills what still runs. Without a daemon there is nothing to do, except with --pods.',
  examples: [
    { command: 'k8s stop', description: 'Stop, and leave the pods running until the next start' },
    { command: 'k8s stop --pods', description: 'Stop everything' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { pods } = optionValues(ownOptions, invocation.flags)
  const { dataDir, controlSocket } = await pathsOf(invocation)
  const { connectControl } = await import('../control/client.ts')
  try {
    await connectControl(controlSocket).stop({ pods })
  } catch (error) {
    if (errorCode(error) !== 'DAEMON_NOT_RUNNING' || pods) throw error
    invocation.print('The daemon does not run.\n')
    return 0
  }
  if (roleIn(dataDir) === 'datastore') invocation.print('Stopped.\n')
  else invocation.print(pods ? 'Stopped, with all pods.\n' : 'Stopped; pods keep running.\n')
  return 0
}
