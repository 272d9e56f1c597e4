import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateDirectoryMode, privateMode, syncDirectory, writeFileAtomically } from '../base/files.ts'
import { emptyRecord, forgetNode } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { checkDatabase } from '../datastore/log/soundness.ts'
import { adoptCopy, revisionOf } from '../datastore/log/copy.ts'
import { foreignObject } from '../datastore/log/own-schema.ts'
import { DatastoreLock } from '../datastore/log/lock.ts'
import { factsEntry, Unpacking } from './contents.ts'
import { checkDigest, openSnapshotFile, readSnapshotFile, unusableSnapshot } from './file.ts'
import { pendingDir, preparingDir } from './pending.ts'
import { printable } from './untar.ts'

/*
 * A restore is prepared beside what it replaces, and becomes decided by one rename:
 *
 *    restore.preparing/new/{db,pki,cluster.json}  --rename-->  restore/new/{db,pki,cluster.json}
 *
 * From then on it is only carried out: what is there goes to restore/old, what is new to its place. Each
 * step may be done again, so that whoever starts next (the daemon, or another restore) finishes what a
 * crash has interrupted. Then restore/old becomes replaced/<time>, and is kept.
 */

/**
 * etcd's advice for etcdutl's --bump-revision: more than any client can have seen of the database since the
 * snapshot. https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump
 */
export const revisionBump = 1_000_000_000
/** Database files in the order in which they go away; the WAL without its database is nothing. */
const databaseFiles = ['state.db', 'state.db-wal', 'state.db-shm'] as const

type RestorePaths = Pick<
  Paths,
  'dataDir' | 'database' | 'databaseDir' | 'pkiDir' | 'clusterFacts' | 'nodeRecord'
>

interface RestoreOptions {
  readonly paths: RestorePaths
  readonly nativeBinding: string | undefined
  readonly file: string
  readonly secret: string | undefined
}

export interface Restored {
  /** The database's revision now; every one before counts as compacted. */
  readonly revision: number
  readonly snapshotRevision: number
  /** Where the old files are; undefined when there were none. */
  readonly replaced: string | undefined
}

/**
 * Puts a snapshot in the place of the data directory's database and keys. Refuses while a datastore runs;
 * checks everything before it replaces anything.
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<Restored> {
  const { paths, nativeBinding } = options
  await mkdir(paths.databaseDir, { recursive: true, mode: privateDirectoryMode })
  using _lock = new DatastoreLock({ path: paths.database, nativeBinding })
  await carryOut(paths)
  const snapshot = await openSnapshotFile(options.file)
  await checkDigest(snapshot)

  const preparing = preparingDir(paths)
  await rm(preparing, { recursive: true, force: true })
  try {
    const unpacking = new Unpacking(join(preparing, 'new'))
    try {
      for await (const file of readSnapshotFile(snapshot, options.secret)) await unpacking.add(file)
      unpacking.requireWhole(snapshot.header)
    } catch (cause) {
      throw cause instanceof AppError ? cause : unusableSnapshot(options.file, cause)
    }
    const fresh = { path: unpacking.database, nativeBinding }
    refuseUnsound(options.file, fresh)
    const revision = revisionAfter(paths, { nativeBinding, snapshotRevision: snapshot.header.revision })
    adoptCopy(fresh, { revision })
    await replaceFacts(paths, unpacking.facts)
    await syncTree(preparing)
    await rename(preparing, pendingDir(paths))
    await syncDirectory(paths.dataDir)
    const replaced = await carryOut(paths)
    return { revision, snapshotRevision: snapshot.header.revision, replaced }
  } finally {
    await rm(preparing, { recursive: true, force: true })
  }
}

/**
 * Finishes a restore that was interrupted after it had been decided, and removes what one has left that was
 * not. To be called before anything is opened; throws while one is under way.
 */
export async function finishRestore(
  paths: RestorePaths,
  nativeBinding: string | undefined,
): Promise<boolean> {
  const isDecided = existsSync(pendingDir(paths))
  if (!isDecided && !existsSync(preparingDir(paths))) return false
  await mkdir(paths.databaseDir, { recursive: true, mode: privateDirectoryMode })
  using _lock = new DatastoreLock({ path: paths.database, nativeBinding })
  await rm(preparingDir(paths), { recursive: true, force: true })
  await carryOut(paths)
  return isDecided
}

/** What was fixed for the cluster that goes must not bind the one that comes, although nothing is known of that. */
async function replaceFacts({ clusterFacts }: RestorePaths, fresh: string): Promise<void> {
  if (existsSync(fresh) || !existsSync(clusterFacts)) return
  await writeFileAtomically(fresh, emptyRecord, { mode: privateMode })
}

function refuseUnsound(
  snapshot: string,
  database: { path: string; nativeBinding: string | undefined },
): void {
  const foreign = foreignObject(database)
  const [finding] =
    foreign === undefined
      ? checkDatabase(database)
      : [`it has ${printable(foreign)} otherwise than it was made`]
  if (finding === undefined) return
  throw new AppError(`cannot restore ${snapshot}: its database is damaged: ${finding}`, {
    code: 'SNAPSHOT_FILE',
    path: snapshot,
    remedy: 'use another snapshot: k8s snapshot ls',
  })
}

/** Beyond all that clients saw of the snapshot's database and of the one that it replaces. */
function revisionAfter(
  { database }: RestorePaths,
  { nativeBinding, snapshotRevision }: { nativeBinding: string | undefined; snapshotRevision: number },
): number {
  return Math.max(snapshotRevision, revisionOf({ path: database, nativeBinding }) ?? 0) + revisionBump
}

/** Carries out what is decided; returns where the old files are. */
async function carryOut(paths: RestorePaths): Promise<string | undefined> {
  const pending = pendingDir(paths)
  if (!existsSync(pending)) return undefined
  const fresh = join(pending, 'new')
  const old = join(pending, 'old')
  await mkdir(join(old, 'db'), { recursive: true, mode: privateDirectoryMode })
  if (existsSync(join(fresh, 'db', 'state.db'))) {
    for (const file of databaseFiles)
      await moveIfPresent(join(paths.databaseDir, file), join(old, 'db', file))
    await rename(join(fresh, 'db', 'state.db'), paths.database)
  }
  if (existsSync(join(fresh, 'pki'))) {
    await moveIfPresent(paths.pkiDir, join(old, 'pki'))
    await rename(join(fresh, 'pki'), paths.pkiDir)
  }
  if (existsSync(join(fresh, factsEntry))) {
    await moveIfPresent(paths.clusterFacts, join(old, factsEntry))
    await rename(join(fresh, factsEntry), paths.clusterFacts)
  }
  // The Node's name and address are those of the machine on which the snapshot goes on. Keys make it a server.
  if (existsSync(paths.pkiDir)) await moveIfPresent(paths.nodeRecord, join(old, basename(paths.nodeRecord)))
  else forgetNode(paths)
  for (const dir of [old, join(old, 'db'), paths.databaseDir, paths.dataDir]) await syncDirectory(dir)
  const replaced = await keepOld(paths, old)
  await rm(pending, { recursive: true })
  await syncDirectory(paths.dataDir)
  return replaced
}

async function keepOld({ dataDir }: RestorePaths, old: string): Promise<string | undefined> {
  if ((await readdir(join(old, 'db'))).length === 0) await rmdir(join(old, 'db'))
  if ((await readdir(old)).length === 0) return undefined
  const stamp = new Date().toISOString().replaceAll(/[-:]/g, '')
  let kept = join(dataDir, 'replaced', stamp)
  // A clock may say the same time twice.
  for (let number = 2; existsSync(kept); number++) kept = join(dataDir, 'replaced', `${stamp}-${number}`)
  await mkdir(dirname(kept), { recursive: true, mode: privateDirectoryMode })
  await rename(old, kept)
  await syncDirectory(dirname(kept))
  return kept
}

async function moveIfPresent(from: string, to: string): Promise<void> {
  if (existsSync(from)) await rename(from, to)
}

/** The files are synced as they are written; this is for their names. */
async function syncTree(dir: string): Promise<void> {
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) await syncTree(join(dir, entry.name))
  }
  await syncDirectory(dir)
}

/** The snapshot that somebody names: a path, or the name of a file in the directory of snapshots. */
export function snapshotPath(given: string, dir: string): string {
  return given === basename(given) && existsSync(join(dir, given)) ? join(dir, given) : given
}
