import { existsSync, statSync } from 'node:fs'
import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateDirectoryMode, privateMode, publicMode, syncDirectory } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { copyDatabase } from '../datastore/log/copy.ts'
import { inspectDatabase } from '../datastore/log/inspect.ts'
import { pkiFiles } from '../pki/pki.ts'
import { openSnapshotFile, type SnapshotFile, writeSnapshotFile } from './file.ts'
import { refuseUnfinishedRestore } from './pending.ts'
import { fileNameOf, unfinishedPrefix } from './store.ts'
import type { TarFile } from './tar.ts'

export interface SaveOptions {
  readonly paths: Paths
  readonly nativeBinding: string | undefined
  /** Of k8s. */
  readonly version: string
  /** Where to; made when it is missing. */
  readonly dir: string
  readonly name: string
  readonly secret: string | undefined
}

/** A copy of the database, and that compressed beside it. */
const spaceFactor = 1.5
const reservedBytes = 64 * 1024 * 1024

/** What the database is called in a snapshot, and the directory of the keys. */
export const databaseEntry = 'db/state.db'
export const pkiEntryPrefix = 'pki/'
/** What was fixed when the cluster was created. */
export const factsEntry = 'cluster.json'

/**
 * Takes a snapshot while the datastore serves, or while nobody does. It has one state of the database, the
 * authorities, the service accounts' key, the encryption key and what was fixed at creation: what a cluster needs to go on elsewhere.
 * Certificates are issued anew by the authorities and are not in it.
 */
export async function saveSnapshot(options: SaveOptions): Promise<SnapshotFile> {
  const { paths, nativeBinding, version, dir, name, secret } = options
  const at = new Date()
  const work = await prepareDirectory(dir)
  try {
    await refuseWithoutSpace(dir, paths.database)
    const copy = join(work, 'state.db')
    refuseUnfinishedRestore(paths, 'take a snapshot')
    copyDatabase({ path: paths.database, nativeBinding }, copy)
    const { revision, keys } = inspectDatabase({ path: copy, nativeBinding })
    const unfinished = join(work, 'snapshot')
    await writeSnapshotFile(unfinished, {
      contents: { createdAt: at.toISOString(), version, revision, keys },
      files: [
        ...factsFile(paths),
        ...keyFiles(paths.pkiDir),
        { name: databaseEntry, path: copy, mode: privateMode },
      ],
      secret,
    })
    // One that has begun since then may have given the new keys to the old database.
    refuseUnfinishedRestore(paths, 'take a snapshot')
    const path = join(dir, fileNameOf({ name, at, isSealed: secret !== undefined }))
    await rename(unfinished, path)
    await syncDirectory(dir)
    return await openSnapshotFile(path)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** A cluster of an earlier version has none before its next start, and a datastore alone never has one. */
function factsFile({ clusterFacts }: Paths): TarFile[] {
  return existsSync(clusterFacts) ? [{ name: factsEntry, path: clusterFacts, mode: privateMode }] : []
}

/** The files of the cluster's identity, as far as they are there: a datastore alone has none. */
function keyFiles(pkiDir: string): TarFile[] {
  return keyFileNames(pkiDir)
    .map(({ file, mode }) => ({ name: `${pkiEntryPrefix}${file}`, path: join(pkiDir, file), mode }))
    .filter(({ path }) => existsSync(path))
}

export function keyFileNames(pkiDir: string): readonly { readonly file: string; readonly mode: number }[] {
  const { authorities, serviceAccountKeyFile, serviceAccountPublicKeyFile, encryptionConfigFile } =
    pkiFiles(pkiDir)
  const pairs = Object.values(authorities)
  const secret = [...pairs.map(({ keyFile }) => keyFile), serviceAccountKeyFile, encryptionConfigFile]
  const open = [...pairs.map(({ certFile }) => certFile), serviceAccountPublicKeyFile]
  const named = (path: string, mode: number) => ({ file: path.slice(pkiDir.length + 1), mode })
  return [...secret.map((path) => named(path, privateMode)), ...open.map((path) => named(path, publicMode))]
}

/** Makes the directory, and in it one to work in. */
async function prepareDirectory(dir: string): Promise<string> {
  const work = join(dir, `${unfinishedPrefix}${process.pid}`)
  try {
    await mkdir(dir, { recursive: true, mode: privateDirectoryMode })
    await removeUnfinished(dir)
    await mkdir(work, { mode: privateDirectoryMode })
    return work
  } catch (cause) {
    throw new AppError(
      `cannot prepare the directory of snapshots ${dir}`,
      { code: 'SNAPSHOT_WRITE', path: dir, remedy: 'name another one with --snapshot-dir' },
      { cause },
    )
  }
}

/** A snapshot must not take the last space from the database, which may be on the same disk. */
async function refuseWithoutSpace(dir: string, database: string): Promise<void> {
  const { bavail, bsize } = await statfs(dir)
  // Not opened, only looked at: whoever opens it in the process that serves it drops its locks.
  const bytes = statSync(database, { throwIfNoEntry: false })?.size ?? 0
  const needed = bytes * spaceFactor + reservedBytes
  if (bavail * bsize >= needed) return
  throw new AppError(`cannot take a snapshot: it needs ${Math.ceil(needed / 1e6)} MB free in ${dir}`, {
    code: 'SNAPSHOT_SPACE',
    path: dir,
    remedy: 'free some (k8s snapshot prune), or name another directory with --snapshot-dir',
  })
}

/** What saves of processes that are gone have left. */
async function removeUnfinished(dir: string): Promise<void> {
  for (const entry of await readdir(dir)) {
    if (!entry.startsWith(unfinishedPrefix)) continue
    if (existsSync(`/proc/${entry.slice(unfinishedPrefix.length)}`)) continue
    await rm(join(dir, entry), { recursive: true, force: true })
  }
}
