import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { describeError, errorCode } from '../../base/errors.ts'
import { privateMode, writeFileAtomicallySync } from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import type { Paths } from '../../config/paths.ts'
import type { Payload } from '../../payload/payload.ts'
import { runCommand } from '../../supervisor/spawn.ts'
import type { Task } from './task.ts'

/** An archive of several gigabytes on a slow disk takes minutes. */
const importTimeoutMs = 15 * 60_000

/** The ground of every pod. */
const pauseArchive = 'pause.tar.zst'

interface ImportOptions {
  readonly payload: Payload
  readonly paths: Paths
  readonly log: Logger
}

/** What pods may need comes as soon as containerd runs; the rest would take processor time from the start. */
export const images: Task = {
  name: 'images',
  purpose: 'import images',
  leaderOnly: false,
  async run({ whenReady, ...context }, signal) {
    await whenReady('cri')
    const imported = new ImageImport(context)
    await imported.early(signal)
    await whenReady('node')
    await imported.late(signal)
  },
}

/** What was imported, by archive; kept beside containerd's own data, so that it is lost with it. */
type ImportRecord = Record<string, { sizeBytes: number; modifiedMs: number }>

/**
 * Imports the archives of the payload and those a user put into ${dataDir}/images into containerd
 * and pins them, so that the kubelet's garbage collection leaves them alone. One that did not change since its
 * import is passed over; a damaged one is reported and spares the others.
 */
class ImageImport {
  readonly #options: ImportOptions
  readonly #recordFile: string
  readonly #record: Promise<ImportRecord>

  constructor(options: ImportOptions) {
    this.#options = options
    this.#recordFile = join(options.paths.containerdRoot, 'imported-archives.json')
    this.#record = readRecord(this.#recordFile)
  }

  /** What pods may need as soon as the kubelet runs. */
  async early(signal: AbortSignal): Promise<void> {
    const { payload, paths } = this.#options
    const own = await archivesIn(payload.imagesDir)
    await this.#import(own.filter(isPause), signal)
    await this.#import(await archivesIn(paths.imagesDir), signal)
  }

  /** What only add-ons run: it would take processor time from the start. */
  async late(signal: AbortSignal): Promise<void> {
    const own = await archivesIn(this.#options.payload.imagesDir)
    await this.#import(
      own.filter((archive) => !isPause(archive)),
      signal,
    )
  }

  async #import(archives: readonly string[], signal: AbortSignal): Promise<void> {
    const { log } = this.#options
    const record = await this.#record
    for (const archive of archives) {
      const { size: sizeBytes, mtimeMs: modifiedMs } = await stat(archive)
      const known = record[archive]
      if (known?.sizeBytes === sizeBytes && known.modifiedMs === modifiedMs) continue
      const failure = await importArchive({ ...this.#options, archive, signal }).then(
        () => undefined,
        describeError,
      )
      if (signal.aborted) return
      if (failure === undefined) {
        record[archive] = { sizeBytes, modifiedMs }
        // At once, for all that was imported so far: the other half may be under way.
        writeFileAtomicallySync(this.#recordFile, `${JSON.stringify(record, undefined, 2)}\n`, {
          mode: privateMode,
        })
        log.info({ archive }, 'imported images')
      } else {
        log.error(
          { archive, reason: failure },
          'cannot import images: the archive must be an OCI or Docker archive, .tar or .tar.zst',
        )
      }
    }
  }
}

function isPause(archive: string): boolean {
  return basename(archive) === pauseArchive
}

async function importArchive({
  archive,
  payload,
  paths,
  signal,
}: Omit<ImportOptions, 'log'> & { archive: string; signal: AbortSignal }) {
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
