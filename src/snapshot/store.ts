import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { openSnapshotFile, type SnapshotFile } from './file.ts'

/*
 * A directory of snapshots. Names are NAME-20261121T203015Z.tar.zst, with .sealed behind where there was
 * a secret. Retention counts those of each NAME.
 */

const namePattern = /^(.+)-(\d{8}T\d{6}Z)\.tar\.zst(\.sealed)?$/
/** What an interrupted save leaves; files of the name of a snapshot are always whole. */
export const unfinishedPrefix = '.unfinished-'

/** What the schedule of a node calls its snapshots: several clusters may keep theirs in one directory. */
export function scheduledName(nodeName: string): string {
  return `scheduled-${nodeName}`
}

export interface StoredSnapshot extends SnapshotFile {
  readonly fileName: string
  readonly name: string
}

export interface Listing {
  /** The newest first. */
  readonly snapshots: readonly StoredSnapshot[]
  /** A sentence for each file that has a snapshot's name and is none. */
  readonly complaints: readonly string[]
}

export function fileNameOf({ name, at, isSealed }: { name: string; at: Date; isSealed: boolean }): string {
  const stamp = at.toISOString().replaceAll(/[-:]|\.\d+/g, '')
  return `${name}-${stamp}.tar.zst${isSealed ? '.sealed' : ''}`
}

/** A directory that is missing has no snapshots. */
export async function listSnapshots(dir: string): Promise<Listing> {
  const found = (await fileNames(dir)).flatMap((fileName) => {
    const [, name, stamp] = namePattern.exec(fileName) ?? []
    return name === undefined || stamp === undefined ? [] : [{ fileName, name, stamp }]
  })
  const snapshots: StoredSnapshot[] = []
  const complaints: string[] = []
  for (const { fileName, name } of found.toSorted((a, b) => (a.stamp < b.stamp ? 1 : -1))) {
    try {
      snapshots.push({ fileName, name, ...(await openSnapshotFile(join(dir, fileName))) })
    } catch (error) {
      complaints.push(describeError(error))
    }
  }
  return { snapshots, complaints }
}

/** Removes all but the newest `retention` snapshots of each name, or of one name alone; returns what it removed. */
export async function pruneSnapshots(
  dir: string,
  { retention, name }: { retention: number; name?: string | undefined },
): Promise<readonly string[]> {
  const { snapshots } = await listSnapshots(dir)
  const seen = new Map<string, number>()
  const removed: string[] = []
  for (const snapshot of snapshots) {
    if (name !== undefined && snapshot.name !== name) continue
    const count = (seen.get(snapshot.name) ?? 0) + 1
    seen.set(snapshot.name, count)
    if (count <= retention) continue
    await rm(snapshot.path, { force: true })
    removed.push(snapshot.fileName)
  }
  return removed
}

async function fileNames(dir: string): Promise<string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw new AppError(
      `cannot read the directory of snapshots ${dir}`,
      { code: 'SNAPSHOT_DIR', path: dir, remedy: 'name another one with --snapshot-dir' },
      { cause: error },
    )
  }
}
