import { randomBytes } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { mkdir, readdir, rm, statfs } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import {
  privateDirectoryMode,
  privateMode,
  readFileIfPresent,
  renameToNewSync,
  syncDirectory,
  writeFileAtomically,
} from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { copyDatabase } from '../datastore/log/copy.ts'
import { inspectDatabase } from '../datastore/log/inspect.ts'
import { filesToSave } from './contents.ts'
import { openSnapshotFile, type SnapshotFile, writeSnapshotFile } from './file.ts'
import { refuseUnfinishedRestore } from './pending.ts'
import { fileNameOf, type SnapshotName, unfinishedPrefix } from './store.ts'

interface SaveOptions {
  readonly paths: Paths
  readonly source: SnapshotSource
  readonly nativeBinding: string | undefined
  /** Of k8s. */
  readonly version: string
  /** Where to; made when it is missing. */
  readonly dir: string
  readonly name: string
  readonly secret: string | undefined
}

/** What a snapshot is taken of. */
export interface SnapshotSource {
  /** What the disk has to have room for until the snapshot is there. */
  neededBytes(): Promise<number>
  /** Makes a database of what there is at one moment; with the id of its cluster where that is not in it, and its facts. */
  copy(target: string): Promise<{ readonly cluster?: string; readonly facts?: string | undefined }>
}

/** A copy of the database, and that compressed beside it. */
const spaceFactor = 1.5

/** The embedded datastore, whether it is served or not. */
export function ofDatabase({ database }: Pick<Paths, 'database'>, nativeBinding: string | undefined) {
  return {
    // Not opened, only looked at: whoever opens it in the process that serves it drops its locks.
    neededBytes: async () => (statSync(database, { throwIfNoEntry: false })?.size ?? 0) * spaceFactor,
    copy: async (target) => {
      copyDatabase({ path: database, nativeBinding }, target)
      return {}
    },
  } satisfies SnapshotSource
}

const reservedBytes = 64 * 1024 * 1024
/** Of snapshots with the same name within a second. */
const namesLimit = 1000

/**
 * Takes a snapshot while the datastore serves, or while nobody does. It has one state of the database, the
 * authorities, the service accounts' key, the encryption key and what was fixed at creation: what a cluster needs to go on elsewhere.
 * Certificates are issued anew by the authorities and are not in it.
 */
export async function saveSnapshot(options: SaveOptions): Promise<SnapshotFile> {
  const { paths, source, nativeBinding, version, dir, name, secret } = options
  const at = new Date()
  const work = await prepareDirectory(dir)
  try {
    await refuseWithoutSpace(dir, await source.neededBytes())
    const copy = join(work, 'state.db')
    refuseUnfinishedRestore(paths, 'take a snapshot')
    const facts = join(work, 'cluster.json')
    const files = await filesToSave(paths, copy, facts)
    const copied = await source.copy(copy)
    await writeFileAtomically(facts, copied.facts ?? (await readFileIfPresent(paths.clusterFacts)) ?? '', {
      mode: privateMode,
    })
    const { revision, keys, clusterId } = inspectDatabase({ path: copy, nativeBinding })
    const cluster = copied.cluster ?? clusterId
    const unfinished = join(work, 'snapshot')
    await writeSnapshotFile(unfinished, {
      contents: {
        ...{ createdAt: at.toISOString(), version, revision, keys },
        ...(cluster !== null && { cluster }),
      },
      files,
      secret,
    })
    // One that has begun since then may have given the new keys to the old database.
    refuseUnfinishedRestore(paths, 'take a snapshot')
    const path = giveName(unfinished, dir, { name, at, isSealed: secret !== undefined })
    await syncDirectory(dir)
    return await openSnapshotFile(path)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** One that another save has given in the same second is not taken from it. */
function giveName(unfinished: string, dir: string, named: Omit<SnapshotName, 'number'>): string {
  for (let number = 1; ; number++) {
    const path = join(dir, fileNameOf({ ...named, number }))
    try {
      renameToNewSync(unfinished, path)
      return path
    } catch (error) {
      if (errorCode(error) !== 'EEXIST' || number === namesLimit) throw error
    }
  }
}

/** Makes the directory, and in it one to work in. */
async function prepareDirectory(dir: string): Promise<string> {
  // Several machines may keep theirs in one directory, and each removes what is left of its own processes.
  const work = join(dir, `${ownUnfinishedPrefix()}${process.pid}-${randomBytes(8).toString('hex')}`)
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
async function refuseWithoutSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir)
  const needed = bytes + reservedBytes
  if (bavail * bsize >= needed) return
  throw new AppError(`cannot take a snapshot: it needs ${Math.ceil(needed / 1e6)} MB free in ${dir}`, {
    code: 'SNAPSHOT_SPACE',
    path: dir,
    remedy: 'free some (k8s snapshot prune), or name another directory with --snapshot-dir',
  })
}

function ownUnfinishedPrefix(): string {
  return `${unfinishedPrefix}${hostname()}-`
}

/** What saves of processes that are gone have left. */
async function removeUnfinished(dir: string): Promise<void> {
  const prefix = ownUnfinishedPrefix()
  for (const entry of await readdir(dir)) {
    const pid = entry.startsWith(prefix) ? /^\d+/.exec(entry.slice(prefix.length))?.[0] : undefined
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    await rm(join(dir, entry), { recursive: true, force: true })
  }
}
