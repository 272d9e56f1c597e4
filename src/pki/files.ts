import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'

/** Keys, and everything that holds one. */
export const privateMode = 0o600
export const publicMode = 0o644
const directoryMode = 0o700

const temporarySuffix = '.tmp'

/**
 * Replaces `path` as a whole, so that a reader finds the old text or the new one: a temporary file beside
 * it is written and renamed. Its mode is `mode` whatever the umask. It is on disk before it gets its name, so that
 * a power cut leaves one of the two as well; what can be made again may do without (`isDurable`: false).
 */
export async function writeFileAtomically(
  path: string,
  text: string,
  { mode, isDurable = true }: { mode: number; isDurable?: boolean },
): Promise<void> {
  const temporary = `${path}.${process.pid}${temporarySuffix}`
  try {
    const file = await open(temporary, 'w', privateMode)
    try {
      await file.writeFile(text)
      await file.chmod(mode)
      if (isDurable) await file.datasync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true })
    throw new AppError(`cannot write ${path}`, { code: 'FILE_WRITE', path }, { cause })
  }
}

/** Writes what differs from what is there; true when it wrote. A wider mode is narrowed to `mode`. */
export async function writeFileIfChanged(path: string, text: string, mode: number): Promise<boolean> {
  if ((await readFileIfPresent(path)) !== text) {
    await writeFileAtomically(path, text, { mode })
    return true
  }
  await narrowMode(path, mode)
  return false
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
    await mkdir(dir, { recursive: true, mode: directoryMode })
    await narrowMode(dir, directoryMode)
    const leftovers = (await readdir(dir)).filter((name) => name.endsWith(temporarySuffix))
    await Promise.all(leftovers.map((name) => rm(join(dir, name), { force: true })))
  } catch (cause) {
    throw new AppError(`cannot prepare the directory ${dir}`, { code: 'DIRECTORY', path: dir }, { cause })
  }
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

/** Promise.all that leaves nothing running behind when it rejects: it waits for the others first. */
export async function allDone<const Tasks extends readonly unknown[]>(
  tasks: Tasks,
): Promise<{ -readonly [Index in keyof Tasks]: Awaited<Tasks[Index]> }> {
  await Promise.allSettled(tasks)
  return Promise.all(tasks)
}

/** For a file that a user named: its directory is made when it is missing. */
export async function prepareParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: directoryMode })
}
