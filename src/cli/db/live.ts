import { AppError, errorCode } from '../../base/errors.ts'
import { readTlsIdentity } from '../../base/tls-files.ts'
import { storageIn } from '../../config/facts.ts'
import { Refused, type ValueKind } from '../../config/table/option.ts'
import type { DatabaseFile } from '../../datastore/log/inspect.ts'
import type { EtcdServer } from '../../datastore/datastore.ts'
import { type Invocation, type OptionValues, requirePayload } from '../command.ts'
import { liveOptions, tlsFiles } from './live-options.ts'
import { pathsOf } from '../daemon.ts'

const endpointKind: ValueKind<string> = {
  placeholder: 'ENDPOINT',
  allowed: 'unix:///PATH, http://HOST:PORT or https://HOST:PORT',
  parse: (text) => (/^(unix:\/\/\/.+|https?:\/\/[^/]+)$/.test(text) ? text : new Refused()),
}

/** Where the datastore serves that is asked, and what is shown to it. */
export function endpointOptions(group: string) {
  return {
    endpoint: {
      group,
      description: 'Where a running datastore serves.',
      kind: endpointKind,
      defaultText: "the daemon's socket",
    },
    ...liveOptions,
  }
}

type Endpoint = OptionValues<ReturnType<typeof endpointOptions>>

/**
 * Asks the datastore at an endpoint. Without one, the file is served for the time that it takes, and where another process
 * has it, the daemon is asked. `verb` is what cannot be done where neither is possible.
 */
export async function askDatastore<Answer>(
  invocation: Invocation,
  { endpoint, verb, ...files }: Endpoint & { verb: string },
  ask: (server: EtcdServer) => Promise<Answer>,
): Promise<Answer> {
  if (endpoint !== undefined) {
    return ask({ address: endpoint, tls: readTlsIdentity(tlsFiles(files)) })
  }
  const { dataDir, database, datastoreSocket } = await pathsOf(invocation)
  if (storageIn(dataDir) !== 'embedded') return ask({ address: `unix://${datastoreSocket}` })
  requirePayload(invocation.environment)
  const { openPayload } = await import('../../payload/payload.ts')
  const payload = openPayload(invocation.environment['K8S_PAYLOAD_DIR'])
  const file = { path: database, nativeBinding: payload.sqliteAddon }
  try {
    return await askFile(file, payload.datastoreWorker, ask)
  } catch (thrown) {
    if (errorCode(thrown) !== 'DATASTORE_LOCKED') throw thrown
    return ask({ address: `unix://${datastoreSocket}` }).catch((error: unknown) => {
      if (errorCode(error) !== 'DATASTORE_UNREACHABLE') throw error
      throw atWhichEndpoint(verb, thrown as AppError, error)
    })
  }
}

/** Serves the file at a socket of its own and asks there. */
async function askFile<Answer>(
  file: DatabaseFile,
  workerUrl: URL,
  ask: (server: EtcdServer) => Promise<Answer>,
): Promise<Answer> {
  const [{ inspectDatabase }, { startDatastore }, { silentLogger }, { mkdtempDisposable }, { tmpdir }] =
    await Promise.all([
      import('../../datastore/log/inspect.ts'),
      import('../../datastore/datastore.ts'),
      import('../../base/logger.ts'),
      import('node:fs/promises'),
      import('node:os'),
    ])
  // Refuses what is missing, foreign or newer before a datastore would be made of it.
  inspectDatabase(file)
  await using directory = await mkdtempDisposable(`${tmpdir()}/k8s-db-`)
  const listen = { unixPath: `${directory.path}/datastore.sock` }
  const datastore = await startDatastore({ ...file, listen, workerUrl, log: silentLogger })
  try {
    return await ask({ address: datastore.listening })
  } finally {
    await datastore.stop()
  }
}

function atWhichEndpoint(verb: string, { fields }: AppError, cause: unknown): AppError {
  return new AppError(
    `cannot ${verb}: process ${fields['pid'] ?? 'of another'} has the database`,
    {
      code: 'DATASTORE_LOCKED',
      remedy: 'Name with --endpoint where it serves, or stop it.',
    },
    { cause },
  )
}
