import {
  accessSync,
  constants,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'

/**
 * What the kernel and the distribution tell in small files. `root` is / on a machine; tests give a
 * tree of their own. Whatever cannot be read counts as absent.
 */
export class HostFiles {
  readonly #root: string

  constructor(root = '/') {
    this.#root = root
  }

  path(path: string): string {
    return join(this.#root, path)
  }

  /** undefined: there is none, or it is not for us. */
  read(path: string): string | undefined {
    return this.#readBytes(path)?.toString('utf8')
  }

  readGzip(path: string): string | undefined {
    const bytes = this.#readBytes(path)
    return bytes && gunzipSync(bytes).toString('utf8')
  }

  exists(path: string): boolean {
    return existsSync(this.path(path))
  }

  /** A link counts, wherever it leads. */
  isThere(path: string): boolean {
    return lstatSync(this.path(path), { throwIfNoEntry: false }) !== undefined
  }

  /** The permission bits; undefined: there is no such thing. */
  mode(path: string): number | undefined {
    const mode = statSync(this.path(path), { throwIfNoEntry: false })?.mode
    return mode === undefined ? undefined : mode & 0o777
  }

  isLink(path: string): boolean {
    return lstatSync(this.path(path), { throwIfNoEntry: false })?.isSymbolicLink() ?? false
  }

  /** The path without links, as the kernel's list of mounts has it; what is missing is taken as it is written. */
  realPath(path: string): string {
    try {
      const root = realpathSync(this.#root)
      return resolve('/', relative(root, realpathSync(this.path(path))))
    } catch {
      const parent = dirname(path)
      return parent === path ? path : join(this.realPath(parent), basename(path))
    }
  }

  list(path: string): string[] {
    try {
      return readdirSync(this.path(path))
    } catch {
      return []
    }
  }

  /** For /proc/sys this is the kernel's own answer, root or not: EROFS in containers, EACCES in namespaces. */
  isWritable(path: string): boolean {
    try {
      accessSync(this.path(path), constants.W_OK)
      return true
    } catch {
      return false
    }
  }

  #readBytes(path: string): Buffer | undefined {
    try {
      return readFileSync(this.path(path))
    } catch {
      return undefined
    }
  }
}
