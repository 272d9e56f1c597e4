import { AppError, errorCode } from '../../base/errors.ts'
import { integer } from '../../config/table/kinds.ts'
import { Refused, type ValueKind } from '../../config/table/option.ts'
import type { DatabaseFile } from '../../datastore/log/inspect.ts'
import { type Command, type Invocation, optionValues, requirePayload } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'

const endpointKind: ValueKind<string> = {
  placeholder: 'ENDPOINT',
  allowed: 'unix:///PATH or http://HOST:PORT',
  parse: (text) => (/^(unix:\/\/\/.+|http:\/\/[^/]+)$/.test(text) ? text : new Refused()),
}

const ownOptions = {
  revision: {
    group: 'Compacting',
    description: 'The history before this revision is removed; without it, all history is.',
    kind: integer({ from: 1, to: 9_999_999_999 }),
  },
  endpoint: {
    group: 'Compacting',
    description: 'Where a running datastore serves.',
    kind: endpointKind,
    defaultText: "the daemon's socket",
  },
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
  const { revision, endpoint } = optionValues(ownOptions, invocation.flags)
  const { database, datastoreSocket } = await pathsOf(invocation)
  requirePayload(invocation.environment)
  const { openPayload } = await import('../../payload/payload.ts')
  const payload = openPayload(invocation.environment['K8S_PAYLOAD_DIR'])
  const file = { path: database, nativeBinding: payload.sqliteAddon }
  const request = { revision, file, workerUrl: payload.datastoreWorker }
  const compacted =
    endpoint === undefined
      ? await compactFile(request, `unix://${datastoreSocket}`)
      : await compactAt(endpoint, revision)
  invocation.print(`Compacted at revision ${compacted}.\n`)
  return 0
}

async function compactAt(address: string, revision: number | undefined): Promise<number> {
  const { compactDatastore } = await import('../../datastore/compact.ts')
  return (await compactDatastore({ address, revision })).revision
}

/** Serves the file at a socket of its own and asks there; when another process has it, asks that. */
async function compactFile(
  request: { revision: number | undefined; file: DatabaseFile; workerUrl: URL },
  daemonAddress: string,
): Promise<number> {
  const { file, revision, workerUrl } = request
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
  await using directory = await mkdtempDisposable(`${tmpdir()}/k8s-compact-`)
  try {
    const listen = { unixPath: `${directory.path}/datastore.sock` }
    const datastore = await startDatastore({ ...file, listen, workerUrl, log: silentLogger })
    try {
      return await compactAt(datastore.listening, revision)
    } finally {
      await datastore.stop()
    }
  } catch (thrown) {
    if (errorCode(thrown) !== 'DATASTORE_LOCKED') throw thrown
    return await compactAt(daemonAddress, revision).catch((error: unknown) => {
      throw errorCode(error) === 'DATASTORE_UNREACHABLE' ? atWhichEndpoint(thrown as AppError, error) : error
    })
  }
}

function atWhichEndpoint({ fields }: AppError, cause: unknown): AppError {
  return new AppError(
    `cannot compact: process ${fields['pid'] ?? 'of another'} has the database`,
    {
      code: 'DATASTORE_LOCKED',
      remedy: 'Name with --endpoint where it serves, or stop it.',
    },
    { cause },
  )
}
