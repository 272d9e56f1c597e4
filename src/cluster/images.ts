import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError, errorCode } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { runCommand } from '../supervisor/process.ts'

/** An archive of several gigabytes on a slow disk takes minutes. */
const importTimeoutMs = 15 * 60_000

export interface ImportOptions {
  readonly payload: Payload
  readonly paths: Paths
  readonly log: Logger
  readonly signal: AbortSignal
}

/** What was imported, by archive; kept beside containerd's own data, so that it is lost with it. */
type ImportRecord = Record<string, { sizeBytes: number; modifiedMs: number }>

/**
 * Imports the archives of the payload and those a user put into ${dataDir}/images into containerd
 * and pins them, so that the kubelet's garbage collection leaves them alone. One that did not change since its
 * import is passed over; a damaged one is reported and spares the others.
 */
export async function importImages({ payload, paths, log, signal }: ImportOptions): Promise<void> {
  const recordFile = join(paths.containerdRoot, 'imported-archives.json')
  const record = await readRecord(recordFile)
  const archives = [...(await archivesIn(payload.imagesDir)), ...(await archivesIn(paths.imagesDir))]
  for (const archive of archives) {
    const { size: sizeBytes, mtimeMs: modifiedMs } = await stat(archive)
    const known = record[archive]
    if (known?.sizeBytes === sizeBytes && known.modifiedMs === modifiedMs) continue
    const failure = await importArchive({ archive, payload, paths, signal }).then(
      () => undefined,
      describeError,
    )
    if (signal.aborted) return
    if (failure === undefined) {
      record[archive] = { sizeBytes, modifiedMs }
      log.info({ archive }, 'imported images')
    } else {
      log.error(
        { archive, reason: failure },
        'cannot import images: the archive must be an OCI or Docker archive, .tar or .tar.zst',
      )
    }
  }
  await writeFile(recordFile, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 })
}

async function importArchive({
  archive,
  payload,
  paths,
  signal,
}: Omit<ImportOptions, 'log'> & { archive: string }) {
  await runCommand({
    command: payload.bin('ctr'),
    args: [
      `--address=${paths.containerdSocket}`,
      '--namespace=k8s.io',
      'images',
      'import',
      '--label=io.cri-containerd.pinned=pinned',
      archive,
    ],
    env: { PATH: payload.binDir },
    timeoutMs: importTimeoutMs,
    signal,
  })
}

/** The payload's own first: the pause image is the ground of every pod. */
async function archivesIn(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  return names
    .filter((name) => /\.tar(\.zst)?$/.test(name))
    .sort()
    .map((name) => join(dir, name))
}

async function readRecord(file: string): Promise<ImportRecord> {
  const text = await readFile(file, 'utf8').catch(() => '{}')
  try {
    return JSON.parse(text) as ImportRecord
  } catch {
    return {}
  }
}
