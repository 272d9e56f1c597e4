import { AppError } from '../base/errors.ts'
import { loadDataDir } from '../config/load.ts'
import { paths } from '../config/paths.ts'
import { schema } from '../config/schema.ts'
import { configOption, type Invocation } from './command.ts'

/** How a command that talks to the daemon finds it: by its data directory alone. */
export const daemonOptions = { ...configOption, 'data-dir': schema['data-dir'] }

export async function controlSocketOf(invocation: Invocation): Promise<string> {
  return (await pathsOf(invocation)).controlSocket
}

export async function pathsOf({ flags, environment }: Pick<Invocation, 'flags' | 'environment'>) {
  const settings = flags.filter(({ name }) => Object.hasOwn(daemonOptions, name))
  return paths({ dataDir: await loadDataDir({ flags: settings, environment }) })
}

/** For what only may be done while no daemon runs; `action` is its verb. */
export async function refuseWhileRunning(socket: string, action: string): Promise<void> {
  const { isServed } = await import('../control/client.ts')
  if (!(await isServed(socket))) return
  throw new AppError(`cannot ${action}: the daemon runs`, {
    code: 'DAEMON_RUNNING',
    socket,
    remedy: `stop it first: k8s stop${action === 'reset' ? ' --pods' : ''} (or systemctl stop k8s)`,
  })
}
