import { createWriteStream, existsSync } from 'node:fs'
import { chmod, mkdir, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError } from '../base/errors.ts'
import { privateDirectoryMode, privateMode } from '../base/files.ts'
import type { TarFile } from '../base/tar.ts'
import type { Paths } from '../config/paths.ts'
import { bundleFiles, hasBundle, requireWholeBundle } from '../pki/bundle.ts'
import type { SnapshotHeader } from './file.ts'
import { printable, type UntarredFile } from './untar.ts'

/*
 * What is in a snapshot:
 *
 *    cluster.json   what was fixed at creation (config/facts.ts), where it is known
 *    pki/...        the bundle (pki/bundle.ts): all of it, or nothing where a datastore is served alone
 *    db/state.db    the database
 */

const databaseEntry = 'db/state.db'
export const factsEntry = 'cluster.json'
const pkiPrefix = 'pki/'

/** Of all files but the database. */
const smallFileLimitBytes = 1024 * 1024
/** What an unpacked database leaves free on its disk. */
const reservedBytes = 64 * 1024 * 1024

/** The files for a snapshot with this copy of the database, and of the facts. Throws PKI_INCOMPLETE when one of the bundle is missing. */
export async function filesToSave(
  { clusterFacts, pkiDir }: Pick<Paths, 'clusterFacts' | 'pkiDir'>,
  databaseCopy: string,
  factsCopy: string = clusterFacts,
): Promise<TarFile[]> {
  const hasFacts = existsSync(clusterFacts)
  // Only a server writes facts, and it has keys by then.
  const isServer = hasFacts || hasBundle(pkiDir)
  const keys = isServer ? await requireWholeBundle(pkiDir, 'take a snapshot') : []
  return [
    ...(hasFacts ? [{ name: factsEntry, path: factsCopy, mode: privateMode }] : []),
    ...keys.map(({ name, path, mode }) => ({ name: `${pkiPrefix}${name}`, path, mode })),
    { name: databaseEntry, path: databaseCopy, mode: privateMode },
  ]
}

/** Puts the files of a snapshot below a directory. All others are refused, whatever their names. */
export class Unpacking {
  readonly #dir: string
  readonly #found = new Set<string>()
  readonly #modes: ReadonlyMap<string, number>
  readonly #keys: readonly string[]

  constructor(dir: string) {
    this.#dir = dir
    const keys = bundleFiles('pki').map(({ path, mode }) => [path, mode] as const)
    this.#keys = keys.map(([name]) => name)
    this.#modes = new Map([[databaseEntry, privateMode], [factsEntry, privateMode], ...keys])
  }

  get database(): string {
    return join(this.#dir, databaseEntry)
  }

  get facts(): string {
    return join(this.#dir, factsEntry)
  }

  async add({ name, size, content }: UntarredFile): Promise<void> {
    const mode = this.#modes.get(name)
    if (mode === undefined) throw new Error(`it has a file ${printable(name)}, which no snapshot has`)
    const path = join(this.#dir, name)
    await mkdir(dirname(path), { recursive: true, mode: privateDirectoryMode })
    if (name === databaseEntry) await this.#refuseWithoutSpace(size)
    else if (size > smallFileLimitBytes)
      throw new Error(`${name} in it is longer than ${smallFileLimitBytes} bytes`)
    await pipeline(content, createWriteStream(path, { flags: 'wx', mode: privateMode, flush: true }))
    await chmod(path, mode)
    this.#found.add(name)
  }

  /** Throws unless all is there that belongs to it, and that its header names. */
  requireWhole({ files }: Pick<SnapshotHeader, 'files'>): void {
    const hasKeys = this.#keys.some((name) => this.#found.has(name))
    const expected = new Set([databaseEntry, ...(hasKeys ? this.#keys : []), ...(files ?? [])])
    for (const name of expected) {
      if (!this.#found.has(name)) throw new Error(`it lacks ${name}`)
    }
    for (const name of this.#found) {
      if (files !== undefined && !files.includes(name)) throw new Error(`its header does not name ${name}`)
    }
  }

  async #refuseWithoutSpace(bytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#dir)
    if (bavail * bsize >= bytes + reservedBytes) return
    throw new AppError(
      `cannot unpack the snapshot: its database has ${Math.ceil(bytes / 1e6)} MB, and ${Math.floor((bavail * bsize) / 1e6)} MB are free in ${this.#dir}`,
      { code: 'SNAPSHOT_SPACE', path: this.#dir, remedy: 'free some space on this disk' },
    )
  }
}
