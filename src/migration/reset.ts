import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateDirectoryMode, privateMode, writeFileAtomically } from '../base/files.ts'
import { changedNodeRecord, readFacts, readNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { Member } from '../datastore/member.ts'
import { idsOfMember } from '../datastore/etcd-wal.ts'
import { readEtcdFile, type StoredMember } from '../datastore/etcd-file/etcd-file.ts'
import { adoptCopy } from '../datastore/log/copy.ts'
import { inspectDatabase } from '../datastore/log/inspect.ts'
import { writeSuccessor } from '../datastore/transfer/etcd.ts'
import type { Payload } from '../payload/payload.ts'
import { hasBundle } from '../pki/bundle.ts'
import { etcdClientIdentity, etcdPkiFiles, makeEtcdAuthority } from '../pki/etcd.ts'
import { pkiFiles } from '../pki/pki.ts'
import { checkDigest, openSnapshotFile, unusableSnapshot } from '../snapshot/file.ts'
import { Replacement } from '../snapshot/replacement.ts'
import { revisionAfter, revisionBump, unpackSnapshot } from '../snapshot/restore.ts'
import { ownerKey, ownerValue } from '../storage/owner.ts'
import { keysDigest, succeed, successionKey } from '../storage/succession.ts'
import { copyKeys, copyTree, treeBytes } from './files.ts'
import { LoneEtcd } from './lone-etcd.ts'
import { knownMembers, logBytes, makeMemberData, memberIdentity } from './member-data.ts'
import { keepFacts, ownPrefix } from './migrate.ts'

const action = 'reset the cluster'
/** A member that serves answers in milliseconds. */
const answerLimitMs = 3_000
/** As a snapshot of an etcd says it; that of a server alone has an id of another kind. */
const isClusterId = /^[0-9a-f]{1,16}$/
/** Of a database of etcd in the form of a snapshot, and unpacked. */
const snapshotFactor = 3

interface ResetOptions {
  readonly paths: Paths
  readonly payload: Payload
  /** Other members may serve: they are the cluster no more. */
  readonly abandonOthers: boolean
}

export interface ClusterReset {
  /** Those that are members no more, as this one knew them. */
  readonly others: readonly string[]
  /** Where what was there before is kept. */
  readonly replaced: string | undefined
}

/**
 * Makes this server's member the only one of a new etcd, with all that it had. Revisions go on far beyond, since the others may have
 * given out some that this one has never seen. To be called by who holds the data directory.
 */
export async function resetToOwnData({ paths, payload, abandonOthers }: ResetOptions): Promise<ClusterReset> {
  refuseWhoHasLeft(paths)
  const member = memberIdentity(paths, action)
  if (!existsSync(join(paths.memberDir, 'member'))) throw noMember(paths)
  const { own, others } = await knownMembers(paths, payload)
  if (!abandonOthers) {
    if (own?.isLearner === true) throw isLearner()
    await refuseServing(paths, others)
  }
  await using replacement = await Replacement.prepare(paths, 'reset')
  await replacement.requireSpace((await treeBytes(paths.memberDir)) * snapshotFactor + logBytes, action)
  const copy = join(replacement.workDir, 'copy')
  const file = join(replacement.workDir, 'etcd.db')
  await copyTree(paths.memberDir, copy)
  {
    await using etcd = await LoneEtcd.start({ paths, payload, dataDir: copy, isForced: true })
    const succession = {
      former: [idsOfMember(paths.memberDir)?.clusterId],
      keys: await keysDigest(paths.pkiDir),
    }
    await etcd.change(successionKey(prefixOf(paths)), (known) => succeed(known, succession))
    await etcd.save(file)
  }
  await rm(copy, { recursive: true })
  await makeMemberData({ payload, member, snapshot: file, dir: replacement.memberDir, revisionBump })
  await rm(file)
  await beAlone(replacement, paths)
  return { others: others.map(nameOf), replaced: await replacement.carryOut() }
}

/** The same with what a snapshot has; what this server has is looked at for its revision alone. */
export async function resetToSnapshot(
  options: ResetOptions & { file: string; secret: string | undefined },
): Promise<ClusterReset & { revision: number; snapshotRevision: number }> {
  const { paths, payload, file: path, secret } = options
  refuseWhoHasLeft(paths)
  const member = memberIdentity(paths, action)
  const snapshot = await openSnapshotFile(path)
  await checkDigest(snapshot)
  await using replacement = await Replacement.prepare(paths, 'reset')
  const work = join(replacement.workDir, 'snapshot')
  await mkdir(work, { mode: privateDirectoryMode })
  const nativeBinding = payload.sqliteAddon
  const unpacked = await unpackSnapshot(snapshot, { dir: work, secret, nativeBinding })
  const keys = pkiFiles(join(work, 'pki'))
  if (!hasBundle(keys.dir))
    throw unusableSnapshot(path, new Error('it has no keys: it was taken of a datastore alone'))
  const database = { path: unpacked.database, nativeBinding }
  await replacement.requireSpace(inspectDatabase(database).liveBytes * snapshotFactor + logBytes, action)
  const prefix = prefixOf(paths)
  const present = await inspectMember(paths, { payload, prefix })
  const revision = revisionAfter(snapshot, present.revision)
  adoptCopy(database, { revision })
  const { cluster } = snapshot.header
  const formerIds = [cluster === undefined || !isClusterId.test(cluster) ? undefined : BigInt(`0x${cluster}`)]
  const file = join(replacement.workDir, 'etcd.db')
  const written = await writeSuccessor({
    ...{ database, file, program: payload.bin('etcd-file') },
    puts: [
      { key: ownerKey(prefix), value: await ownerValue(keys) },
      {
        key: successionKey(prefix),
        value: succeed(present.succession, {
          former: [...formerIds, idsOfMember(paths.memberDir)?.clusterId],
          keys: await keysDigest(keys.dir),
        }),
      },
    ],
    prefix: { from: ownPrefix, to: prefix },
  })
  await makeMemberData({ payload, member, snapshot: file, dir: replacement.memberDir })
  await keepFacts(replacement, unpacked.facts, {
    'server-mode': 'ha',
    'cluster-init': 'true',
    'etcd-prefix': prefix,
  })
  // Members of before have certificates of this authority, and so has whoever joins again.
  const authority = Object.values(etcdPkiFiles(paths.pkiDir).authority)
  await rename(keys.dir, replacement.pkiDir)
  await copyKeys(paths.pkiDir, replacement.pkiDir, {
    leaveOut: (name) => !authority.includes(join(paths.pkiDir, name)),
  })
  await makeEtcdAuthority(replacement.pkiDir)
  for (const left of [work, file]) await rm(left, { recursive: true })
  await beAlone(replacement, paths)
  return {
    ...{ others: [], revision: written.revision, snapshotRevision: snapshot.header.revision },
    replaced: await replacement.carryOut(),
  }
}

/** It waits for no other server to let it in, and does not go to members of before, which may come back with what they had. */
async function beAlone(replacement: Replacement, paths: Paths): Promise<void> {
  const record = changedNodeRecord(paths, { isJoining: undefined, otherMembers: [] })
  await writeFileAtomically(replacement.nodeRecord, record, { mode: privateMode })
}

/** A majority that lives is the cluster: there would be two of it. */
async function refuseServing({ pkiDir }: Paths, others: readonly StoredMember[]): Promise<void> {
  const addresses = others.flatMap(({ clientUrls }) => clientUrls.filter((url) => url.startsWith('https:')))
  if (addresses.length === 0) return
  const tls = etcdClientIdentity(etcdPkiFiles(pkiDir))
  const serves = async (address: string) => {
    using member = new Member({ address, tls })
    await member.read('/', { isLocal: false, signal: AbortSignal.timeout(answerLimitMs) })
    return address
  }
  const serving = await Promise.any(addresses.map(serves)).catch(() => undefined)
  if (serving === undefined) return
  throw new AppError(`cannot ${action}: the member at ${serving} serves with a majority of the others`, {
    code: 'CLUSTER_SERVES',
    endpoint: serving,
    remedy:
      'start this server, which is one of them; where the others shall be the cluster no more, stop them and say --abandon-others',
  })
}

function prefixOf({ dataDir }: Paths): string {
  return readFacts(dataDir).cluster['etcd-prefix'] ?? ownPrefix
}

/** What the data of this server say, as far as they can be read: they may be missing, or damaged. */
async function inspectMember(
  { memberDir }: Paths,
  { payload, prefix }: { payload: Pick<Payload, 'bin'>; prefix: string },
): Promise<{ revision: number; succession: string | undefined }> {
  const path = join(memberDir, 'member', 'snap', 'db')
  const found: { revision: number; succession: string | undefined } = { revision: 0, succession: undefined }
  if (!existsSync(path)) return found
  const key = Buffer.from(successionKey(prefix))
  const records = readEtcdFile({ program: payload.bin('etcd-file'), path, wantsDigest: false })
  try {
    for await (const record of records) {
      if (record.kind === 'head') found.revision = record.compactedRevision
      else if (record.kind === 'version') {
        found.revision = Math.max(found.revision, record.revision)
        if (key.equals(record.key)) found.succession = Buffer.from(record.value).toString()
      }
    }
  } catch {
    // That is why it is reset.
  }
  return found
}

function nameOf({ name, peerUrls }: StoredMember): string {
  return name || peerUrls.join()
}

function refuseWhoHasLeft(paths: Paths): void {
  if (readNodeRecord(paths).hasLeft !== true) return
  throw new AppError(`cannot ${action}: this server has left its cluster (k8s etcd leave)`, {
    code: 'HAS_LEFT',
    remedy: 'reset on a server that is one of the cluster',
  })
}

function isLearner(): AppError {
  return new AppError(
    `cannot ${action}: this server has joined, and had not caught up yet with what the cluster has`,
    {
      code: 'MEMBER_IS_LEARNER',
      remedy:
        'reset on another server, or name a snapshot: --from-snapshot FILE; --abandon-others goes on with what is here',
    },
  )
}

function noMember({ memberDir }: Paths): AppError {
  return new AppError(`cannot ${action}: there are no data of etcd in ${memberDir}`, {
    code: 'ETCD_DATA_MISSING',
    path: memberDir,
    remedy: 'name a snapshot: k8s cluster reset --from-snapshot FILE (k8s snapshot ls)',
  })
}
