import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateMode, writeFileAtomically } from '../base/files.ts'
import { movedRecord, readFacts } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { schema } from '../config/schema.ts'
import { inspectDatabase } from '../datastore/log/inspect.ts'
import { checkDatabase } from '../datastore/log/soundness.ts'
import { importEtcdFile, writeSuccessor } from '../datastore/transfer/etcd.ts'
import type { Payload } from '../payload/payload.ts'
import { requireWholeBundle } from '../pki/bundle.ts'
import { isOfEtcd, makeEtcdAuthority } from '../pki/etcd.ts'
import { pkiFiles } from '../pki/pki.ts'
import { Replacement } from '../snapshot/replacement.ts'
import { ownerKey, ownerValue } from '../storage/owner.ts'
import { copyKeys } from './files.ts'
import { LoneEtcd } from './lone-etcd.ts'
import { knownMembers, logBytes, makeMemberData, memberIdentity } from './member-data.ts'

/** How much larger a file of etcd may be than what of a database is in use. */
const etcdFactor = 1.25
/** And a database than what is in use of an etcd. */
const databaseFactor = 1.5

interface MigrateOptions {
  readonly paths: Paths
  readonly payload: Payload
}

export interface Migrated {
  readonly revision: number
  readonly keys: number
  /** Where what was there before is kept. */
  readonly replaced: string | undefined
}

/** What the keys of objects begin with where a server alone keeps them, and in an etcd that has another prefix. */
export const ownPrefix = String(schema['etcd-prefix'].default)

/**
 * Makes this server, which is alone, the first member of an etcd of the servers: keys, revisions and leases are the same. To be
 * called by who holds the data directory.
 */
export async function migrateToHa({ paths, payload }: MigrateOptions): Promise<Migrated> {
  const action = 'migrate to an etcd of the servers'
  const member = memberIdentity(paths, action)
  const database = { path: paths.database, nativeBinding: payload.sqliteAddon }
  if (!existsSync(paths.clusterFacts) || !existsSync(paths.database)) throw noCluster(action, paths)
  await requireWholeBundle(paths.pkiDir, action)
  const { keys, liveBytes } = inspectDatabase(database)
  const [finding] = checkDatabase(database)
  if (finding !== undefined) {
    throw new AppError(`cannot ${action}: the database is damaged: ${finding}`, {
      code: 'MIGRATE_UNSOUND',
      path: paths.database,
      remedy: 'restore a snapshot first: k8s snapshot ls',
    })
  }
  await using replacement = await Replacement.prepare(paths, 'migration')
  await replacement.requireSpace(liveBytes * etcdFactor * 2 + logBytes, action)
  await copyKeys(paths.pkiDir, replacement.pkiDir)
  await makeEtcdAuthority(replacement.pkiDir)
  const file = join(replacement.workDir, 'etcd.db')
  const { revision } = await writeSuccessor({
    ...{ database, file, program: payload.bin('etcd-file') },
    puts: [{ key: ownerKey(ownPrefix), value: await ownerValue(pkiFiles(paths.pkiDir)) }],
    prefix: { from: ownPrefix, to: ownPrefix },
  })
  await makeMemberData({ payload, member, snapshot: file, dir: replacement.memberDir })
  await rm(file)
  await keepFacts(replacement, paths.clusterFacts, {
    'server-mode': 'ha',
    'cluster-init': 'true',
    'etcd-prefix': ownPrefix,
  })
  return { revision, keys, replaced: await replacement.carryOut() }
}

/** The way back: the only member of the servers' etcd becomes a server alone. */
export async function migrateToSingle({ paths, payload }: MigrateOptions): Promise<Migrated> {
  const action = 'migrate to a server alone'
  if (!existsSync(join(paths.memberDir, 'member'))) throw noCluster(action, paths)
  await requireWholeBundle(paths.pkiDir, action)
  const { others } = await knownMembers(paths, payload)
  if (others.length > 0) throw notAlone(others)
  const prefix = readFacts(paths.dataDir).cluster['etcd-prefix'] ?? ownPrefix
  await using replacement = await Replacement.prepare(paths, 'migration')
  const file = join(replacement.workDir, 'etcd.db')
  {
    await using etcd = await LoneEtcd.start({ paths, payload, dataDir: paths.memberDir, isForced: false })
    const { bytes, bytesInUse } = await etcd.size()
    await replacement.requireSpace(bytes + bytesInUse * databaseFactor, action)
    await etcd.save(file)
  }
  const { report } = await importEtcdFile({
    database: { path: replacement.database, nativeBinding: payload.sqliteAddon },
    program: payload.bin('etcd-file'),
    file,
    wantsDigest: true,
    ...(prefix !== ownPrefix && { prefix: { from: prefix, to: ownPrefix } }),
  })
  await rm(file)
  await copyKeys(paths.pkiDir, replacement.pkiDir, { leaveOut: isOfEtcd })
  await keepFacts(replacement, paths.clusterFacts, { 'server-mode': 'single' })
  return { revision: report.revision, keys: report.keys, replaced: await replacement.carryOut() }
}

export async function keepFacts(
  { clusterFacts }: Pick<Replacement, 'clusterFacts'>,
  ...moved: Parameters<typeof movedRecord>
): Promise<void> {
  await writeFileAtomically(clusterFacts, movedRecord(...moved), { mode: privateMode })
}

function noCluster(action: string, { dataDir }: Paths): AppError {
  return new AppError(`cannot ${action}: there is no cluster in ${dataDir} that has served`, {
    code: 'NO_CLUSTER',
    path: dataDir,
    remedy:
      'name the --data-dir of one; a new cluster is created as it shall be: k8s --server-mode=ha --cluster-init',
  })
}

function notAlone(
  others: readonly { readonly name: string; readonly peerUrls: readonly string[] }[],
): AppError {
  const names = others.map(({ name, peerUrls }) => name || peerUrls.join()).join(', ')
  return new AppError(`cannot migrate to a server alone: its etcd has other members: ${names}`, {
    code: 'MIGRATE_NOT_ALONE',
    remedy:
      'have those servers leave first (k8s etcd leave on each); where they are lost for good, k8s cluster reset makes this one the only member',
  })
}
