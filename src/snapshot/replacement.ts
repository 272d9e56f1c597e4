import { existsSync, statSync } from 'node:fs'
import { mkdir, readdir, rename, rm, rmdir, statfs } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import {
  privateDirectoryMode,
  privateMode,
  readFileIfPresent,
  syncDirectory,
  writeFileAtomically,
} from '../base/files.ts'
import { forgetNode } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { DatastoreLock } from '../datastore/log/lock.ts'
import { factsEntry } from './contents.ts'
import { pendingDir, preparingDir } from './pending.ts'

/*
 * What takes the place of the database, the data of etcd, the keys or the facts of a data directory is prepared beside them,
 * and becomes decided by one rename:
 *
 *    restore.preparing/new/{db,etcd,pki,*.json}  --rename-->  restore/new/{db,etcd,pki,*.json}
 *
 * From then on it is only carried out: what is there goes to restore/old, what is new to its place; of the database and the
 * data of etcd, one takes the place of both. Each step may be done again, so that whoever starts next (the daemon, or another
 * command) finishes what a crash has interrupted. Then restore/old becomes replaced/<time>, and is kept.
 */

/** What is done: whether the Node stays who it is follows from it. */
export type ReplacementKind = 'restore' | 'migration' | 'reset'

export type ReplacementPaths = Pick<
  Paths,
  'dataDir' | 'database' | 'databaseDir' | 'memberDir' | 'pkiDir' | 'clusterFacts' | 'nodeRecord'
>

/** Database files in the order in which they go away; the WAL without its database is nothing. */
const databaseFiles = ['state.db', 'state.db-wal', 'state.db-shm'] as const
const memberEntry = 'etcd'
/** Says which kind it is; without it, a restore of an earlier version. */
const kindEntry = 'kind'
const reservedBytes = 64 * 1024 * 1024

/** A replacement that is being prepared. */
export class Replacement implements AsyncDisposable {
  readonly #paths: ReplacementPaths
  readonly #kind: ReplacementKind

  private constructor(paths: ReplacementPaths, kind: ReplacementKind) {
    this.#paths = paths
    this.#kind = kind
  }

  /** To be called by who holds the data directory (holdDataDirectory). */
  static async prepare(paths: ReplacementPaths, kind: ReplacementKind): Promise<Replacement> {
    refuseOtherFileSystems(paths)
    await rm(preparingDir(paths), { recursive: true, force: true })
    await mkdir(join(preparingDir(paths), 'new'), { recursive: true, mode: privateDirectoryMode })
    return new Replacement(paths, kind)
  }

  /** For what is of no use afterwards. */
  get workDir(): string {
    return preparingDir(this.#paths)
  }

  /** What is put here takes the place of what is there; nothing: that stays. */
  get dir(): string {
    return join(this.workDir, 'new')
  }

  get database(): string {
    return join(this.dir, 'db', basename(this.#paths.database))
  }

  get memberDir(): string {
    return join(this.dir, memberEntry)
  }

  get pkiDir(): string {
    return join(this.dir, 'pki')
  }

  get clusterFacts(): string {
    return join(this.dir, factsEntry)
  }

  get nodeRecord(): string {
    return join(this.dir, basename(this.#paths.nodeRecord))
  }

  /** Throws REPLACEMENT_SPACE. `action` is what cannot be done. */
  async requireSpace(bytes: number, action: string): Promise<void> {
    const { bavail, bsize } = await statfs(this.workDir)
    const needed = bytes + reservedBytes
    if (bavail * bsize >= needed) return
    const [wanted, free] = [Math.ceil(needed / 1e6), Math.floor((bavail * bsize) / 1e6)]
    throw new AppError(
      `cannot ${action}: it needs ${wanted} MB free in ${this.#paths.dataDir}, and there are ${free}`,
      { code: 'REPLACEMENT_SPACE', path: this.#paths.dataDir, remedy: 'free some space on this disk' },
    )
  }

  /** Puts what was prepared in its place; returns where the old files are, undefined when there were none. */
  async carryOut(): Promise<string | undefined> {
    const { dataDir } = this.#paths
    await writeFileAtomically(join(this.workDir, kindEntry), this.#kind, { mode: privateMode })
    // From the decision on, a disk without any room is to be enough.
    for (const dir of [join(this.workDir, 'old', 'db'), join(dataDir, 'replaced')])
      await mkdir(dir, { recursive: true, mode: privateDirectoryMode })
    await syncTree(this.workDir)
    await rename(this.workDir, pendingDir(this.#paths))
    await syncDirectory(dataDir)
    return carryOut(this.#paths)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.workDir, { recursive: true, force: true })
  }
}

/**
 * Keeps everybody else from the data directory, and finishes what was decided. Throws DATASTORE_LOCKED while a datastore, a
 * daemon's or another command's, has it.
 */
export async function holdDataDirectory(
  paths: ReplacementPaths,
  nativeBinding: string | undefined,
): Promise<Disposable & { readonly finished: ReplacementKind | undefined }> {
  await mkdir(paths.databaseDir, { recursive: true, mode: privateDirectoryMode })
  const lock = new DatastoreLock({ path: paths.database, nativeBinding })
  try {
    const finished = await kindOfPending(paths)
    await carryOut(paths)
    return { finished, [Symbol.dispose]: () => lock[Symbol.dispose]() }
  } catch (error) {
    lock[Symbol.dispose]()
    throw error
  }
}

/**
 * Finishes what was interrupted after it had been decided, and removes what one has left that was not. To be called before
 * anything is opened; throws REPLACEMENT_UNDER_WAY while one is. Returns what it has finished.
 */
export async function finishReplacement(
  paths: ReplacementPaths,
  nativeBinding: string | undefined,
): Promise<ReplacementKind | undefined> {
  if (!existsSync(pendingDir(paths)) && !existsSync(preparingDir(paths))) return undefined
  using held = await holdDataDirectory(paths, nativeBinding).catch((error: unknown) => {
    throw errorCode(error) === 'DATASTORE_LOCKED' ? underWay(error) : error
  })
  await rm(preparingDir(paths), { recursive: true, force: true })
  return held.finished
}

function underWay(cause: unknown): AppError {
  const pid = cause instanceof AppError ? cause.fields['pid'] : undefined
  return new AppError(
    `cannot start: a restore, a migration or a reset is under way${pid === undefined ? '' : ` in process ${pid}`}`,
    { code: 'REPLACEMENT_UNDER_WAY', remedy: 'wait for its end' },
  )
}

async function kindOfPending(paths: ReplacementPaths): Promise<ReplacementKind | undefined> {
  if (!existsSync(pendingDir(paths))) return undefined
  const said = await readFileIfPresent(join(pendingDir(paths), kindEntry))
  return said === 'migration' || said === 'reset' ? said : 'restore'
}

/** Everything is renamed, which no mount stands in the way of: one that does would show when it is decided already. */
function refuseOtherFileSystems({ dataDir, databaseDir, memberDir, pkiDir }: ReplacementPaths): void {
  const { dev } = statSync(dataDir)
  const path = [databaseDir, memberDir, pkiDir].find((dir) => {
    const found = statSync(dir, { throwIfNoEntry: false })
    return found !== undefined && found.dev !== dev
  })
  if (path === undefined) return
  throw new AppError(`cannot replace what is in ${path}: it is on another file system than ${dataDir}`, {
    code: 'REPLACEMENT_MOUNT',
    path,
    remedy: 'copy it to a plain directory of that name, and mount the disk again when this is done',
  })
}

/** Carries out what is decided; returns where the old files are. */
async function carryOut(paths: ReplacementPaths): Promise<string | undefined> {
  const kind = await kindOfPending(paths)
  if (kind === undefined) return undefined
  try {
    return await takeSteps(paths, kind)
  } catch (cause) {
    throw new AppError(
      `cannot finish a ${kind} that is decided`,
      {
        code: 'REPLACEMENT_UNFINISHED',
        path: pendingDir(paths),
        remedy:
          'mend the disk, or free some space on it: the same command, or a start of k8s, goes on from there',
      },
      { cause },
    )
  }
}

async function takeSteps(paths: ReplacementPaths, kind: ReplacementKind): Promise<string | undefined> {
  const pending = pendingDir(paths)
  const fresh = join(pending, 'new')
  const old = join(pending, 'old')
  await mkdir(join(old, 'db'), { recursive: true, mode: privateDirectoryMode })
  const [database, member] = [join(fresh, 'db', basename(paths.database)), join(fresh, memberEntry)]
  if (existsSync(database) || existsSync(member)) {
    for (const file of databaseFiles)
      await moveIfPresent(join(paths.databaseDir, file), join(old, 'db', file))
    await moveIfPresent(paths.memberDir, join(old, memberEntry))
    await moveIfPresent(database, paths.database)
    await moveIfPresent(member, paths.memberDir)
  }
  if (existsSync(join(fresh, 'pki'))) {
    await moveIfPresent(paths.pkiDir, join(old, 'pki'))
    await rename(join(fresh, 'pki'), paths.pkiDir)
  }
  for (const path of [paths.clusterFacts, paths.nodeRecord]) {
    const name = basename(path)
    if (!existsSync(join(fresh, name))) continue
    await moveIfPresent(path, join(old, name))
    await rename(join(fresh, name), path)
  }
  if (kind === 'restore') {
    // The Node's name and address are those of the machine on which the snapshot goes on. Keys make it a server.
    if (existsSync(paths.pkiDir)) await moveIfPresent(paths.nodeRecord, join(old, basename(paths.nodeRecord)))
    else forgetNode(paths)
  }
  for (const dir of [old, join(old, 'db'), paths.databaseDir, paths.dataDir]) await syncDirectory(dir)
  const replaced = await keepOld(paths, old)
  await rm(pending, { recursive: true })
  await syncDirectory(paths.dataDir)
  return replaced
}

async function keepOld({ dataDir }: ReplacementPaths, old: string): Promise<string | undefined> {
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
