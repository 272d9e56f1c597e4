/*
 * How files and directories come to the disk, in one place: each is for its owner alone from its first byte
 * on, gets its name when it is whole, and no name can be known before. What others may read is opened up to
 * them when it has its contents.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fdatasyncSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { AppError, errorCode } from './errors.ts'

/** Keys, sockets, and everything that holds a secret. */
export const privateMode = 0o600
export const publicMode = 0o644
export const privateDirectoryMode = 0o700

const temporarySuffix = '.tmp'

interface WriteOptions {
  /** Whatever the umask is. */
  readonly mode: number
  /**
   * How much of it has to outlive a power cut: all (the default); the contents, where `syncDirectory` follows for
   * several names at once; nothing, where it can be made again.
   */
  readonly durable?: 'all' | 'contents' | 'nothing'
  /** Default: this process's. */
  readonly owner?: { readonly uid: number; readonly gid: number }
}

/**
 * Replaces `path` as a whole: readers, and a machine that loses its power, find the old contents or the new
 * ones. Rejects with FILE_WRITE.
 */
export async function writeFileAtomically(
  path: string,
  contents: string | Uint8Array,
  options: WriteOptions,
): Promise<void> {
  await writeTogether([{ path, contents, ...options }])
}

interface WholeFile extends WriteOptions {
  readonly path: string
  readonly contents: string | Uint8Array
}

/** Files that are good for nothing without each other: none gets its name before all of them are written (a full disk). */
export async function writeTogether(files: readonly WholeFile[]): Promise<void> {
  const written = files.map((file) => ({ ...file, temporary: temporaryPath(file.path) }))
  let path = ''
  try {
    for (const file of written) {
      path = file.path
      await writeWhole(file.temporary, file)
    }
    for (const file of written) {
      path = file.path
      await rename(file.temporary, path)
      if ((file.durable ?? 'all') === 'all') await syncDirectory(dirname(path))
    }
  } catch (cause) {
    await Promise.all(written.map(({ temporary }) => rm(temporary, { force: true })))
    throw cannotWrite(path, cause)
  }
}

async function writeWhole(path: string, { contents, mode, durable, owner }: WholeFile): Promise<void> {
  const file = await open(path, 'wx', privateMode)
  try {
    await file.writeFile(contents)
    if (owner !== undefined) await file.chown(owner.uid, owner.gid)
    await file.chmod(mode)
    if (durable !== 'nothing') await file.datasync()
  } finally {
    await file.close()
  }
}

/** As `writeFileAtomically`, for whoever must not wait in between. */
export function writeFileAtomicallySync(
  path: string,
  contents: string | Uint8Array,
  { mode, durable = 'all', owner }: WriteOptions,
): void {
  const temporary = temporaryPath(path)
  try {
    const descriptor = openSync(temporary, 'wx', privateMode)
    try {
      writeFileSync(descriptor, contents)
      if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid)
      fchmodSync(descriptor, mode)
      if (durable !== 'nothing') fdatasyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, path)
    if (durable === 'all') syncPathSync(dirname(path))
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw cannotWrite(path, cause)
  }
}

/** Writes what differs from what is there; true when it wrote. A wider mode is narrowed to `mode`. */
export async function writeFileIfChanged(
  path: string,
  text: string,
  options: WriteOptions,
): Promise<boolean> {
  if ((await readFileIfPresent(path)) !== text) {
    await writeFileAtomically(path, text, options)
    return true
  }
  await narrowMode(path, options.mode)
  return false
}

/** What each start makes anew, for components that run as root. A disk that is full keeps none from a start like the last. */
export async function writeRendered(path: string, text: string): Promise<void> {
  await writeFileIfChanged(path, text, { mode: privateMode, durable: 'nothing' })
}

/** A name beside `path` that nobody can have foreseen, for what is renamed to it when it is whole. */
export function temporaryPath(path: string): string {
  return join(dirname(path), `.${randomBytes(8).toString('hex')}${temporarySuffix}`)
}

/** Gives a whole file its name, which must not be taken: then EEXIST is thrown, and nothing was changed. */
export function renameToNewSync(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch (cause) {
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(errorCode(cause) ?? '')) throw cause
    // A file system without links: the name is taken first.
    closeSync(openSync(to, 'wx', privateMode))
    renameSync(from, to)
    return
  }
  rmSync(from)
}

/** undefined when there is no such file. */
export async function readFileIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return undefined
    throw new AppError(`cannot read ${path}`, { code: 'FILE_READ', path }, { cause })
  }
}

/** Takes away the permissions beyond `mode`, as after a copy under a lax umask. */
export async function narrowMode(path: string, mode: number): Promise<void> {
  const actual = (await stat(path)).mode & 0o777
  if ((actual & ~mode) !== 0) await chmod(path, actual & mode)
}

/** A directory that its owner alone may enter, free of what an interrupted write left in it. */
export async function preparePrivateDirectory(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: privateDirectoryMode })
    await narrowMode(dir, privateDirectoryMode)
    const leftovers = (await readdir(dir)).filter((name) => name.endsWith(temporarySuffix))
    await Promise.all(leftovers.map((name) => rm(join(dir, name), { force: true })))
  } catch (cause) {
    throw new AppError(`cannot prepare the directory ${dir}`, { code: 'DIRECTORY', path: dir }, { cause })
  }
}

/** For a file that a user named: its directory is made when it is missing. */
export async function prepareParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: privateDirectoryMode })
}

/**
 * Makes an empty file for its owner alone, unless it exists. One that exists is not even opened: closing it
 * would drop the locks that this process has on it (fcntl(2), F_SETLK).
 */
export function createPrivateFileSync(path: string): void {
  try {
    closeSync(openSync(path, 'ax', privateMode))
  } catch (thrown) {
    if (errorCode(thrown) !== 'EEXIST') throw thrown
  }
}

/**
 * Makes a directory, with those above it. What is in it survives a power cut only if its name does, which
 * its parent holds.
 */
export function makePrivateDirectorySync(path: string): void {
  const directory = resolve(path)
  const first = mkdirSync(directory, { recursive: true, mode: privateDirectoryMode })
  if (first === undefined) return
  for (let made = directory; made.length >= first.length; made = dirname(made)) syncPathSync(dirname(made))
}

/** Brings the directory's own entries (new and renamed files) to disk. */
export async function syncDirectory(dir: string): Promise<void> {
  const directory = await open(dir, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** Brings a file, or a directory's own entries, to disk. Not for a file that this process has locked: fcntl(2). */
export function syncPathSync(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function cannotWrite(path: string, cause: unknown): AppError {
  return new AppError(`cannot write ${path}`, { code: 'FILE_WRITE', path }, { cause })
}

/** Where a path leads; itself where there is nothing. */
export function withoutLinks(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
