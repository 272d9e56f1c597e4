import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import type { DatastoreSettings } from '../../../src/datastore/datastore.ts'
import { openSnapshotFile, type SnapshotFile } from '../../../src/snapshot/file.ts'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { datastorePayload } from '../cli/payload.ts'
import { runProcess } from '../cli/run-cli.ts'
import { RawClient, fieldsOf, message, runDatastore, temporaryDirectory } from '../datastore/support.ts'

export const methods = {
  put: '/etcdserverpb.KV/Put',
  range: '/etcdserverpb.KV/Range',
  grant: '/etcdserverpb.Lease/LeaseGrant',
  ttl: '/etcdserverpb.Lease/LeaseTimeToLive',
} as const

/** The data directory of a cluster without its components. */
export function dataDirectory(): Paths {
  const paths = pathsOf({ dataDir: join(temporaryDirectory(), 'data') })
  for (const dir of [paths.dataDir, paths.databaseDir, paths.pkiDir]) mkdirSync(dir, { recursive: true })
  return paths
}

/** Keys of the cluster, of which the contents are `mark`. */
export function writeKeys({ pkiDir }: Paths, mark: string): void {
  for (const { path, mode } of bundleFiles(pkiDir)) writeFileSync(path, mark, { mode })
}

export async function serve(paths: Paths, settings: Partial<DatastoreSettings> = {}) {
  const datastore = await runDatastore({ path: paths.database, ...settings })
  const client = new RawClient(datastore.listening)
  return {
    datastore,
    client,
    put: (key: string, value: string, lease = 0) =>
      client.unary(methods.put, message({ 1: key, 2: value, 3: lease })),
    /** The values of all keys, and the revision. */
    all: async () => {
      const reply = fieldsOf(await client.unary(methods.range, message({ 1: '\0', 2: '\0' })))
      const header = fieldsOf(reply.get(1)?.[0] as Buffer)
      const kvs = (reply.get(2) ?? []).map((kv) => fieldsOf(kv as Buffer))
      const text = (field: bigint | Buffer | undefined) => String(field ?? '')
      return {
        revision: Number(header.get(3)?.[0]),
        values: Object.fromEntries(kvs.map((kv) => [text(kv.get(1)?.[0]), text(kv.get(5)?.[0])])),
      }
    },
  }
}

/** What `k8s snapshot` commands run with, besides their flags. */
export function commandEnvironment(): { K8S_PAYLOAD_DIR: string } {
  return { K8S_PAYLOAD_DIR: datastorePayload() }
}

/** Takes a snapshot as everybody does, in a process of its own: this one may serve the database (fcntl(2)). */
export async function save(
  { dataDir }: Paths,
  { name = 'test', secretFile }: { name?: string; secretFile?: string } = {},
): Promise<SnapshotFile> {
  const secret = secretFile === undefined ? [] : [`--snapshot-secret-file=${secretFile}`]
  const { code, stdout, stderr } = await runProcess({
    args: ['snapshot', 'save', name, `--data-dir=${dataDir}`, ...secret],
    environment: commandEnvironment(),
  })
  if (code !== 0) throw new Error(stderr)
  return openSnapshotFile(stdout.split('\n', 1)[0] as string)
}
