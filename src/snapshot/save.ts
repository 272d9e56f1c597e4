import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Paths } from '../config/paths.ts'
import { copyDatabase } from '../datastore/log/copy.ts'
import { inspectDatabase } from '../datastore/log/inspect.ts'
import { privateMode, publicMode, syncDirectory } from '../pki/files.ts'
import { pkiFiles } from '../pki/pki.ts'
import { openSnapshotFile, type SnapshotFile, writeSnapshotFile } from './file.ts'
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

const directoryMode = 0o700

/** What the database is called in a snapshot, and the directory of the keys. */
export const databaseEntry = 'db/state.db'
export const pkiEntryPrefix = 'pki/'

/**
 * Takes a snapshot while the datastore serves, or while nobody does. It has one state of the database, the
 * authorities, the service accounts' key and the encryption key: what a cluster needs to go on elsewhere.
 * Certificates are issued anew by the authorities and are not in it.
 */
export async function saveSnapshot(options: SaveOptions): Promise<SnapshotFile> {
  const { paths, nativeBinding, version, dir, name, secret } = options
  await mkdir(dir, { recursive: true, mode: directoryMode })
  await removeUnfinished(dir)
  const at = new Date()
  const work = join(dir, `${unfinishedPrefix}${process.pid}`)
  await mkdir(work, { mode: directoryMode })
  try {
    const copy = join(work, 'state.db')
    copyDatabase({ path: paths.database, nativeBinding }, copy)
    const { revision, keys } = inspectDatabase({ path: copy, nativeBinding })
    const unfinished = join(work, 'snapshot')
    await writeSnapshotFile(unfinished, {
      contents: { createdAt: at.toISOString(), version, revision, keys },
      files: [...keyFiles(paths.pkiDir), { name: databaseEntry, path: copy, mode: privateMode }],
      secret,
    })
    const path = join(dir, fileNameOf({ name, at, isSealed: secret !== undefined }))
    await rename(unfinished, path)
    await syncDirectory(dir)
    return await openSnapshotFile(path)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
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

/** What saves of processes that are gone have left. */
async function removeUnfinished(dir: string): Promise<void> {
  for (const entry of await readdir(dir)) {
    if (!entry.startsWith(unfinishedPrefix)) continue
    if (existsSync(`/proc/${entry.slice(unfinishedPrefix.length)}`)) continue
    await rm(join(dir, entry), { recursive: true, force: true })
  }
}
