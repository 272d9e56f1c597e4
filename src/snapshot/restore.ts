import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateMode, writeFileAtomically } from '../base/files.ts'
import { emptyRecord } from '../config/facts.ts'
import { checkDatabase } from '../datastore/log/soundness.ts'
import { adoptCopy, revisionOf } from '../datastore/log/copy.ts'
import { foreignObject } from '../datastore/log/own-schema.ts'
import { Unpacking } from './contents.ts'
import {
  checkDigest,
  openSnapshotFile,
  readSnapshotFile,
  type SnapshotFile,
  unusableSnapshot,
} from './file.ts'
import { holdDataDirectory, Replacement, type ReplacementPaths } from './replacement.ts'
import { printable } from './untar.ts'

/**
 * etcd's advice for etcdutl's --bump-revision: more than any client can have seen of the database since the
 * snapshot. https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump
 */
export const revisionBump = 1_000_000_000

interface RestoreOptions {
  readonly paths: ReplacementPaths
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
  const { paths, nativeBinding, file, secret } = options
  using _held = await holdDataDirectory(paths, nativeBinding)
  const snapshot = await openSnapshotFile(file)
  await checkDigest(snapshot)
  await using replacement = await Replacement.prepare(paths, 'restore')
  const unpacking = await unpackSnapshot(snapshot, { dir: replacement.dir, secret, nativeBinding })
  const revision = revisionAfter(snapshot, revisionOf({ path: paths.database, nativeBinding }))
  adoptCopy({ path: unpacking.database, nativeBinding }, { revision })
  await replaceFacts(paths, unpacking.facts)
  const replaced = await replacement.carryOut()
  return { revision, snapshotRevision: snapshot.header.revision, replaced }
}

/** Unpacks a snapshot into a directory; throws unless all of it is there and sound. */
export async function unpackSnapshot(
  snapshot: SnapshotFile,
  given: { dir: string; secret: string | undefined; nativeBinding: string | undefined },
): Promise<Unpacking> {
  const { dir, secret, nativeBinding } = given
  const unpacking = new Unpacking(dir)
  try {
    for await (const file of readSnapshotFile(snapshot, secret)) await unpacking.add(file)
    unpacking.requireWhole(snapshot.header)
  } catch (cause) {
    throw cause instanceof AppError ? cause : unusableSnapshot(snapshot.path, cause)
  }
  refuseUnsound(snapshot.path, { path: unpacking.database, nativeBinding })
  return unpacking
}

/** What was fixed for the cluster that goes must not bind the one that comes, although nothing is known of that. */
async function replaceFacts({ clusterFacts }: ReplacementPaths, fresh: string): Promise<void> {
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

/** Beyond all that clients saw of the snapshot's database and of the one that it replaces, as far as that can be told. */
export function revisionAfter({ header }: SnapshotFile, replaced = 0): number {
  return Math.max(header.revision, replaced) + revisionBump
}

/** The snapshot that somebody names: a path, or the name of a file in the directory of snapshots. */
export function snapshotPath(given: string, dir: string): string {
  return given === basename(given) && existsSync(join(dir, given)) ? join(dir, given) : given
}
