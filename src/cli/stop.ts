import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, errorCode } from '../base/errors.ts'
import { roleIn } from '../config/facts.ts'
import { boolean } from '../config/table/kinds.ts'
import { type Command, type Invocation, optionValues } from './command.ts'
import { daemonOptions, pathsOf } from './daemon.ts'

/** A shim ends a moment after its last container. */
const remainingLimitMs = 3_000
const lookIntervalMs = 50

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
    'Returns when everything has stopped; asked for twice, it kills what still runs. Without a daemon there is nothing to do, except with --pods, which fails, too, when a pod runs on.',
  examples: [
    { command: 'k8s stop', description: 'Stop, and leave the pods running until the next start' },
    { command: 'k8s stop --pods', description: 'Stop everything' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { pods } = optionValues(ownOptions, invocation.flags)
  const { dataDir, controlSocket, containerdSocket } = await pathsOf(invocation)
  const { connectControl } = await import('../control/client.ts')
  try {
    await connectControl(controlSocket).stop({ pods })
  } catch (error) {
    if (errorCode(error) !== 'DAEMON_NOT_RUNNING' || pods) throw error
    invocation.print('The daemon does not run.\n')
    return 0
  }
  if (pods) await refuseRemaining(containerdSocket)
  if (roleIn(dataDir) === 'datastore') invocation.print('Stopped.\n')
  else invocation.print(pods ? 'Stopped, with all pods.\n' : 'Stopped; pods keep running.\n')
  return 0
}

/** The daemon tells its own log what kept it from ending a pod; who asked for it looks whether any is left. */
async function refuseRemaining(containerdSocket: string): Promise<void> {
  const [{ HostFiles }, { readPodProcesses }] = await Promise.all([
    import('../node/facts/host-files.ts'),
    import('../node/reset/pod-processes.ts'),
  ])
  const look = () => readPodProcesses(new HostFiles(), containerdSocket)
  const endMs = performance.now() + remainingLimitMs
  let left = look()
  for (; left.length > 0 && performance.now() < endMs; left = look()) await sleep(lookIntervalMs)
  const [first] = left
  if (first === undefined) return
  throw new AppError(
    `cannot end all pods: ${left.length} of their processes run on, such as ${first.command} (${first.pid})`,
    {
      code: 'PODS_REMAIN',
      remedy:
        'the log of the daemon says why; to end them, start k8s again and run `k8s stop --pods` once, or `k8s reset`',
    },
  )
}
