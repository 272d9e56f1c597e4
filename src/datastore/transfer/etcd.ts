import { existsSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'

import { AppError, errorCode } from '../../base/errors.ts'
import { renameToNewSync, syncPathSync, temporaryPath } from '../../base/files.ts'
import { readEtcdFile, writeEtcdFile } from '../etcd-file/etcd-file.ts'
import { Dump, type DumpedVersion } from '../log/dump.ts'
import type { DatabaseFile, DatabaseReport } from '../log/inspect.ts'
import { fillDatabase } from './target.ts'

const neverCompacted = -1

/** What keys begin with where they are from, and where they are put. */
interface Prefixes {
  readonly from: string
  readonly to: string
}

interface EtcdImport {
  readonly report: DatabaseReport
  /** The etcd has users and roles, which this datastore does not know. */
  readonly hadAuth: boolean
}

/** Makes a database of a file of etcd: the same keys, revisions, versions and leases. */
export async function importEtcdFile(options: {
  readonly database: DatabaseFile
  /** The program etcd-file. */
  readonly program: string
  readonly file: string
  /** False takes a file without a digest, as etcd's own member/snap/db is. */
  readonly wantsDigest: boolean
  /** What the keys that are taken begin with in the file, and in the database; default: all are taken as they are. */
  readonly prefix?: Prefixes
}): Promise<EtcdImport> {
  const { database, program, file, wantsDigest, prefix } = options
  const select = prefix === undefined ? (version: DumpedVersion) => version : below(prefix)
  const leases = new Set<bigint>()
  let hadAuth = false
  let newest = 0
  let newestTaken = 0
  const report = await fillDatabase(database, async (loader) => {
    let compactedRevision = neverCompacted
    for await (const record of readEtcdFile({ program, path: file, wantsDigest })) {
      if (record.kind === 'head') ({ compactedRevision, isAuthEnabled: hadAuth } = record)
      else if (record.kind === 'version') {
        newest = record.revision
        const taken = select(record)
        if (taken === undefined) continue
        newestTaken = newest
        loader.version(taken)
        leases.add(taken.lease)
      } else if (record.kind === 'lease' && (prefix === undefined || leases.has(record.id)))
        loader.lease(record)
    }
    // Where the newest revisions are those of other keys, they must not be given again.
    return newestTaken < newest ? Math.max(newest, compactedRevision) : compactedRevision
  })
  return { report, hadAuth }
}

/** Of an etcd that has other keys, too. */
function below({ from, to }: Prefixes) {
  const [former, own] = [Buffer.from(`${from}/`), Buffer.from(`${to}/`)]
  return (version: DumpedVersion): DumpedVersion | undefined => {
    const { key } = version
    if (!former.equals(key.subarray(0, former.length))) return undefined
    return from === to ? version : { ...version, key: Buffer.concat([own, key.subarray(former.length)]) }
  }
}

/**
 * Writes the new file `file` of etcd for an etcd that takes the place of a database: with the same revisions, and with what is put beside, at
 * the next one, unless it is there.
 */
export async function writeSuccessor(options: {
  readonly database: DatabaseFile
  readonly program: string
  readonly file: string
  readonly puts: readonly { readonly key: string; readonly value: string }[]
  readonly prefix: Prefixes
}): Promise<{ readonly revision: number }> {
  const { database, program, file, puts, prefix } = options
  using dump = new Dump(database)
  const { compactedRevision, revision } = dump
  let written = revision
  const successor = {
    ...{ compactedRevision, revision, leases: () => dump.leases() },
    *versions() {
      const former = new Map<string, DumpedVersion>()
      const wanted = puts.map(({ key, value }) => ({ key: Buffer.from(key), value: Buffer.from(value) }))
      for (const version of dump.versions()) {
        const put = wanted.find(({ key }) => key.equals(version.key))
        if (put !== undefined) former.set(put.key.toString(), version)
        yield renamed(version, prefix)
      }
      let sub = 0
      for (const { key, value } of wanted) {
        const known = former.get(key.toString())
        const live = known === undefined || known.version === 0 ? undefined : known
        if (live !== undefined && value.equals(live.value)) continue
        written = revision + 1
        const { createRevision, version } = live ?? { createRevision: written, version: 0 }
        yield { revision: written, sub: sub++, key, createRevision, version: version + 1, lease: 0n, value }
      }
    },
  }
  await writeEtcdFile(successor, { program, path: file })
  return { revision: written }
}

/** A key that does not begin so stays as it is. */
function renamed(version: DumpedVersion, { from, to }: Prefixes): DumpedVersion {
  return from === to ? version : (below({ from, to })(version) ?? version)
}

/** Writes a file of etcd, as `etcdctl snapshot save` would; also while a datastore serves the database. */
export async function exportEtcdFile(options: {
  readonly database: DatabaseFile
  readonly program: string
  readonly file: string
}): Promise<{ readonly revision: number }> {
  const { database, program, file } = options
  if (existsSync(file)) throw exists(file)
  using dump = new Dump(database)
  const unfinished = temporaryPath(file)
  try {
    await writeEtcdFile(dump, { program, path: unfinished })
    renameToNewSync(unfinished, file)
    syncPathSync(dirname(file))
  } catch (thrown) {
    throw errorCode(thrown) === 'EEXIST' ? exists(file) : thrown
  } finally {
    rmSync(unfinished, { force: true })
  }
  return { revision: dump.revision }
}

function exists(file: string): AppError {
  return new AppError(`cannot export: ${file} exists`, {
    code: 'EXPORT_EXISTS',
    path: file,
    remedy: 'name another file, or remove that one',
  })
}
