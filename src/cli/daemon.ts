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
