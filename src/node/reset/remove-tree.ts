import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { AppError, errorCode } from '../../base/errors.ts'

/*
 * Removes what is on one mount, and nothing else. A list of mounts is true for the instant in which it was read; here
 * each directory is opened, the kernel says which mount that is on, and what is in it is removed by way of the
 * open directory. Whatever is mounted meanwhile is somebody's, and keeps what is in it.
 *
 * Pods can nest directories deeper than any path is long, or than one could keep open: what lies too deep is
 * moved to the top, and removed from there.
 */

const depthLimit = 64

/**
 * Removes a file, a link, or a directory with all that can be removed in it. What is missing is fine. Rejects with the
 * first reason why something is left. Others have their turn after each directory.
 */
export async function removeTree(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return
  if (!stats.isDirectory()) return unlinkSync(path)
  await inDirectory(path, async (opened, mountId) => {
    const removal = new Removal(opened, mountId)
    do await removal.empty(opened, { path, depth: 1 })
    while (removal.hasMoved())
    if (removal.failures.length > 0) throw removal.failures[0]
  })
  rmdirSync(path)
}

class Removal {
  readonly failures: unknown[] = []
  readonly #top: string
  readonly #mountId: string
  #moved = 0
  #seen = 0

  constructor(top: string, mountId: string) {
    this.#top = top
    this.#mountId = mountId
  }

  /** Whether something was moved to the top since the last call. */
  hasMoved(): boolean {
    const hasMoved = this.#moved > this.#seen
    this.#seen = this.#moved
    return hasMoved
  }

  /** `opened` is the way into the directory that is open, whatever is at `path` by now. */
  async empty(opened: string, { path, depth }: Place): Promise<void> {
    for (const entry of readdirSync(opened, { withFileTypes: true })) {
      const way = join(opened, entry.name)
      const place = { path: join(path, entry.name), depth: depth + 1 }
      try {
        if (entry.isDirectory()) await this.#removeDirectory(way, place)
        else unlinkSync(way)
      } catch (error) {
        // Otherwise somebody else has removed it.
        if (errorCode(error) !== 'ENOENT') this.failures.push(withPath(error, place.path))
      }
    }
    await nextTurn()
  }

  async #removeDirectory(way: string, place: Place): Promise<void> {
    const failuresBefore = this.failures.length
    const isDone = await inDirectory(way, async (opened, mountId) => {
      if (mountId !== this.#mountId) throw mounted(place.path)
      if (place.depth > depthLimit) return false
      await this.empty(opened, place)
      return true
    })
    if (!isDone) renameSync(way, join(this.#top, `.deep-${process.pid}-${this.#moved++}`))
    else if (this.failures.length === failuresBefore) rmdirSync(way)
  }
}

interface Place {
  /** As its user knows it. */
  readonly path: string
  readonly depth: number
}

/** O_NOFOLLOW: a directory that became a link is none. */
async function inDirectory<Result>(
  path: string,
  work: (opened: string, mountId: string) => Promise<Result>,
): Promise<Result> {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    const information = readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8')
    return await work(`/proc/self/fd/${descriptor}`, /^mnt_id:\s*(\d+)$/m.exec(information)?.[1] ?? '')
  } finally {
    closeSync(descriptor)
  }
}

/** The kernel's reason, with the path that its user knows in place of the one by way of the open directory. */
function withPath(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || error instanceof AppError) return error
  return new AppError(`${path}: ${error.message.split(', ', 1)[0]}`, {
    code: errorCode(error) ?? 'RESET_REMOVE',
  })
}

function mounted(path: string): AppError {
  return new AppError(`${path} is mounted`, { code: 'RESET_MOUNTED', path })
}
