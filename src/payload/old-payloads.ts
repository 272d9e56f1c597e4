/*
 * Each version of the artifact is unpacked beside the others, half a gigabyte each, and pods go on running from the one
 * that started them. What is in ${DATA_DIR}/data/:
 *
 *    <id>/          a payload, written by the launcher
 *    <id>/k8s       the artifact that it came from, kept for the way back once its cluster was ready
 *    .runs.json     which payloads have run a cluster that became ready, the latest last
 *    .<id>.*.tmp    one that comes or goes; the launcher removes what is left of these
 */
import { existsSync, readFileSync } from 'node:fs'
import { readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import { publicMode, writeFileAtomically } from '../base/files.ts'
import { copyArtifact } from './artifact-file.ts'
import { isPayloadUsed } from './payload-users.ts'

const keptRuns = 16

/** What must be free on the disk beside a copy of the artifact. */
const spareBytes = 1024 ** 3

/** running: the one that asks; previous: the one that ran before, which the way back leads to. */
type PayloadUse = 'running' | 'previous' | 'used' | 'unused'

interface InstalledPayload {
  readonly id: string
  readonly dir: string
  readonly version: string
  readonly sizeBytes: number
  readonly use: PayloadUse
  /** Where the artifact that it came from is kept. */
  readonly artifact?: string
}

export interface PayloadPlace {
  /** ${DATA_DIR}/data */
  readonly payloadsDir: string
  /** The id of the payload that this process runs from; '' for none of these. */
  readonly current: string
  /** Where containerd keeps the bundles of running containers. */
  readonly bundlesDir: string
}

/** All payloads that are unpacked, the running one first, then by their age, the youngest first. */
export async function listPayloads(place: PayloadPlace): Promise<InstalledPayload[]> {
  const { payloadsDir, current, bundlesDir } = place
  const entries = await readdir(payloadsDir, { withFileTypes: true }).catch(() => [])
  // Of other kinds are somebody's own.
  const names = entries.filter((entry) => entry.isDirectory() && /^[0-9a-f]{16}$/.test(entry.name))
  const found = await Promise.all(
    names.map(({ name: id }) =>
      stat(join(payloadsDir, id)).then(
        ({ mtimeMs }) => [{ id, changedMs: mtimeMs }],
        // It was removed just now, by the daemon or by hand.
        () => [],
      ),
    ),
  )
  const ids = found
    .flat()
    .toSorted((a, b) => b.changedMs - a.changedMs)
    .map(({ id }) => id)
  const others = ids.filter((id) => id !== current)
  const ran = (await readRuns(payloadsDir)).filter((id) => others.includes(id))
  const previous = ran.at(-1) ?? others[0]
  const ordered = ids.includes(current) ? [current, ...others] : others
  return Promise.all(
    ordered.map(async (id) => {
      const dir = join(payloadsDir, id)
      const isKept = id === current || id === previous
      const isUsed = !isKept && (await isPayloadUsed({ dir, id, bundlesDir }))
      const artifact = join(dir, 'k8s')
      return {
        id,
        dir,
        version: versionIn(dir),
        sizeBytes: await sizeOf(dir),
        use: isKept ? (id === current ? 'running' : 'previous') : isUsed ? 'used' : 'unused',
        ...(existsSync(artifact) && { artifact }),
      } as const
    }),
  )
}

/**
 * Removes the payloads that nothing needs, and returns them. The running one, the one that ran before it and those that a
 * process, a shim or a container refers to stay.
 */
export async function removeOldPayloads(place: PayloadPlace): Promise<InstalledPayload[]> {
  const unused = (await listPayloads(place)).filter(({ use }) => use === 'unused')
  const removed: InstalledPayload[] = []
  for (const payload of unused) if (await removePayload(payload, place)) removed.push(payload)
  return removed
}

/** False: something began to use it just now, or somebody else has removed it. */
async function removePayload({ id, dir }: InstalledPayload, { payloadsDir, bundlesDir }: PayloadPlace) {
  const hidden = join(payloadsDir, `.${id}.${process.pid}.tmp`)
  // From here on nobody finds it; who found it before is found now.
  try {
    await rename(dir, hidden)
  } catch (error) {
    // The daemon and `k8s reset --old-payloads` may look at once.
    if (errorCode(error) === 'ENOENT') return false
    throw error
  }
  if (await isPayloadUsed({ dir: hidden, id, bundlesDir })) {
    await rename(hidden, dir)
    return false
  }
  await rm(hidden, { recursive: true, force: true })
  return true
}

/** Notes that the cluster of a payload became ready: from then on it is what a later version's way back leads to. */
export async function recordRun({ payloadsDir, current }: PayloadPlace): Promise<void> {
  const runs = await readRuns(payloadsDir)
  if (runs.at(-1) === current) return
  const kept = [...runs.filter((id) => id !== current), current].slice(-keptRuns)
  await writeFileAtomically(join(payloadsDir, '.runs.json'), `${JSON.stringify(kept)}\n`, {
    mode: publicMode,
  })
}

/** Keeps a copy of the artifact in its payload: an upgrade replaces the file that it was started from. */
export async function keepArtifact(given: PayloadPlace & { artifact: string }): Promise<'kept' | 'is there'> {
  const { payloadsDir, current, artifact } = given
  const target = join(payloadsDir, current, 'k8s')
  if (existsSync(target)) return 'is there'
  const [{ size }, { bavail, bsize }] = await Promise.all([stat(artifact), statfs(payloadsDir)])
  if (bavail * bsize < size + spareBytes) {
    throw new AppError(`cannot keep a copy of ${artifact}: the disk of ${payloadsDir} is nearly full`, {
      code: 'ARTIFACT_SPACE',
    })
  }
  await copyArtifact({ source: artifact, target, payloadId: current })
  return 'kept'
}

async function readRuns(payloadsDir: string): Promise<string[]> {
  const text = await readFile(join(payloadsDir, '.runs.json'), 'utf8').catch(() => '[]')
  try {
    const runs: unknown = JSON.parse(text)
    return Array.isArray(runs) ? runs.filter((id): id is string => typeof id === 'string') : []
  } catch {
    return []
  }
}

function versionIn(dir: string): string {
  try {
    const { gitVersion } = JSON.parse(readFileSync(join(dir, 'lib', 'version.json'), 'utf8')) as {
      gitVersion?: unknown
    }
    return typeof gitVersion === 'string' ? gitVersion : 'unknown'
  } catch {
    return 'unknown'
  }
}

/** What it takes on the disk. */
async function sizeOf(dir: string): Promise<number> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => [])
  const sizes = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) =>
        stat(join(entry.parentPath, entry.name)).then(
          ({ blocks }) => blocks * 512,
          () => 0,
        ),
      ),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
