import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { openSnapshotFile, type SnapshotFile } from './file.ts'

/*
 * A directory of snapshots. Names are NAME-20261121T203015Z.tar.zst, with -2 and so on behind the time for further
 * ones of that second, and .sealed at the end where there was a secret. Retention counts those of each NAME.
 *
 * The times are those of a clock that may have been wrong. A snapshot that is dated later than now says nothing of its
 * age: it is told, and neither counted nor removed.
 */

const namePattern = /^([A-Za-z0-9][\w.-]*)-(\d{8}T\d{6}Z)(?:-(\d{1,4}))?\.tar\.zst(\.sealed)?$/
/** What an interrupted save leaves; files of the name of a snapshot are always whole. */
export const unfinishedPrefix = '.unfinished-'

/** What the schedule of a node calls its snapshots: several clusters may keep theirs in one directory. */
export function scheduledName(nodeName: string): string {
  return `scheduled-${nodeName}`
}

interface StoredSnapshot extends SnapshotFile {
  readonly fileName: string
  readonly name: string
  /** Dated later than now. */
  readonly isAhead: boolean
}

export interface Listing {
  /** The newest first. */
  readonly snapshots: readonly StoredSnapshot[]
  /** A sentence for each file that has a snapshot's name and is none. */
  readonly complaints: readonly string[]
}

export interface SnapshotName {
  readonly name: string
  readonly at: Date
  /** From 1 on: of those of this second. */
  readonly number: number
  readonly isSealed: boolean
}

export function fileNameOf({ name, at, number, isSealed }: SnapshotName): string {
  const stamp = at.toISOString().replaceAll(/[-:]|\.\d+/g, '')
  return `${name}-${stamp}${number === 1 ? '' : `-${number}`}.tar.zst${isSealed ? '.sealed' : ''}`
}

interface ParsedName {
  readonly fileName: string
  readonly name: string
  readonly stamp: string
  readonly number: number
}

function parseName(fileName: string): ParsedName | undefined {
  const [, name, stamp, number = '1'] = namePattern.exec(fileName) ?? []
  return name === undefined || stamp === undefined
    ? undefined
    : { fileName, name, stamp, number: Number(number) }
}

/** 20261121T203015Z in ms, as Date has it; NaN when it is no time. */
function timeOf(stamp: string): number {
  return Date.parse(stamp.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'))
}

/** A directory that is missing has no snapshots. */
export async function listSnapshots(dir: string, now = new Date()): Promise<Listing> {
  const found = (await fileNames(dir)).flatMap((fileName) => parseName(fileName) ?? [])
  const snapshots: StoredSnapshot[] = []
  const complaints: string[] = []
  for (const { fileName, name, stamp } of found.toSorted(newestFirst)) {
    try {
      const file = await openSnapshotFile(join(dir, fileName))
      const isAhead = !(timeOf(stamp) <= now.getTime())
      snapshots.push({ fileName, name, isAhead, ...file })
    } catch (error) {
      complaints.push(describeError(error))
    }
  }
  return { snapshots, complaints }
}

function newestFirst(one: ParsedName, other: ParsedName): number {
  if (one.stamp !== other.stamp) return one.stamp < other.stamp ? 1 : -1
  return other.number - one.number
}

/** One sentence when snapshots are dated later than now. */
export function aheadWarning(snapshots: readonly StoredSnapshot[]): string | undefined {
  const names = snapshots.filter(({ isAhead }) => isAhead).map(({ fileName }) => fileName)
  if (names.length === 0) return undefined
  return (
    `dated later than now, by a clock that was wrong then or is now, and therefore neither counted nor ` +
    `removed: ${names.join(', ')}`
  )
}

interface PruneOptions {
  readonly retention: number
  /** undefined: of all names. */
  readonly name?: string | undefined
  /** Whatever their dates say, these are the newest: paths in the order of their making. */
  readonly made?: readonly string[]
  readonly now?: Date
}

interface Pruned {
  readonly removed: readonly string[]
  /** See `aheadWarning`. */
  readonly warning: string | undefined
}

/**
 * Removes all but the newest `retention` snapshots of each name, or of one name alone; those of several clusters are
 * counted apart, and who has made one removes none of another's. One that does not say whose it is counts for all.
 */
export async function pruneSnapshots(dir: string, options: PruneOptions): Promise<Pruned> {
  const { retention, name, made = [], now } = options
  const { snapshots } = await listSnapshots(dir, now)
  const candidates = snapshots.filter((snapshot) => name === undefined || snapshot.name === name)
  const isOwn = ({ path }: StoredSnapshot) => made.includes(path)
  const own = candidates
    .filter(isOwn)
    .toSorted((one, other) => made.indexOf(other.path) - made.indexOf(one.path))
  const cluster = own[0]?.header.cluster
  const isOfAnother = ({ header }: StoredSnapshot) =>
    cluster !== undefined && (header.cluster ?? cluster) !== cluster
  const foreign = candidates.filter((snapshot) => !isOwn(snapshot) && !isOfAnother(snapshot))
  const seen = new Map<string, number>()
  const removed: string[] = []
  for (const snapshot of [...own, ...foreign.filter(({ isAhead }) => !isAhead)]) {
    const kind = `${snapshot.name} ${snapshot.header.cluster ?? cluster ?? ''}`
    const count = (seen.get(kind) ?? 0) + 1
    seen.set(kind, count)
    if (count <= retention) continue
    await rm(snapshot.path, { force: true })
    removed.push(snapshot.fileName)
  }
  return { removed, warning: aheadWarning(foreign) }
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
