import type { DatabaseFile } from '../../datastore/log/inspect.ts'
import { type Invocation, requirePayload } from '../command.ts'
import { pathsOf, requireOwnStorage } from '../daemon.ts'

/** The program that knows etcd's own files. */
export async function etcdFileProgram(environment: Invocation['environment']): Promise<string> {
  const { openPayload } = await import('../../payload/payload.ts')
  return openPayload(environment['K8S_PAYLOAD_DIR']).bin('etcd-file')
}

/** The database that the flags name, with what it takes to open it. */
export async function databaseOf(invocation: Invocation): Promise<Required<DatabaseFile>> {
  const paths = await pathsOf(invocation)
  requireOwnStorage(paths, 'use the database')
  requirePayload(invocation.environment)
  const [{ openPayload }, { refuseUnfinishedRestore }] = await Promise.all([
    import('../../payload/payload.ts'),
    import('../../snapshot/pending.ts'),
  ])
  refuseUnfinishedRestore(paths, 'use the database')
  return {
    path: paths.database,
    nativeBinding: openPayload(invocation.environment['K8S_PAYLOAD_DIR']).sqliteAddon,
  }
}
