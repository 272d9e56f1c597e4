import { AppError } from '../base/errors.ts'
import { storageIn } from '../config/facts.ts'
import { loadDataDir } from '../config/load.ts'
import { type Paths, paths } from '../config/paths.ts'
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

/** Throws STORED_ELSEWHERE where the cluster's objects are not on this machine; `action` is what cannot be done. */
export function requireOwnStorage({ dataDir, pkiDir }: Paths, action: string, remedy?: string): void {
  const storage = storageIn(dataDir)
  if (storage === 'embedded') return
  const isOwn = storage === 'etcd-member'
  const where = isOwn ? 'an etcd, of which this server has a member' : 'an etcd that others run'
  throw new AppError(`cannot ${action}: the objects of this cluster are in ${where}`, {
    code: 'STORED_ELSEWHERE',
    remedy:
      remedy ??
      (isOwn
        ? 'k8s etcd and k8s snapshot save are for it'
        : `use etcdctl and etcdutl there, or k8s snapshot save; what etcdctl saves needs ${pkiDir} beside it`),
  })
}
