import { existsSync } from 'node:fs'
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, errorCode } from '../../base/errors.ts'
import { privateMode, writeFileAtomicallySync } from '../../base/files.ts'
import { Trouble } from '../trouble.ts'
import { containerdStore, type ImageStore, type OpenStore } from './image-store.ts'
import type { MachineTaskContext, Task } from './task.ts'

/** How often the directory is looked at; an archive that changed between two looks is still being written. */
const lookIntervalMs = 5_000

/** A disk that was full, or a containerd that was starting again, may be well by then. */
const retryIntervalMs = 60_000

/** How long what needs the archives waits for them. */
const archivesLimitMs = 120_000

/** The ground of every pod. */
const pauseArchive = 'pause.tar.zst'
/** What `ctr images import` reads: OCI and Docker archives, packed in any of these ways. */
const archivePattern = /\.(tar|tar\.gz|tgz|tar\.zst)$/
const allowedNames = '.tar, .tar.gz, .tgz or .tar.zst'
/**
 * Imports the archives of the payload and those that a user puts into ${dataDir}/images, and pins them, so that the
 * kubelet's garbage collection leaves them alone. What pods may need comes as soon as containerd runs; the rest would
 * take processor time from the start.
 */
export const images = importing(() => true, containerdStore)

/** The same of a node without add-ons. */
export const imagesOfPods = (openStore: OpenStore): Task<MachineTaskContext> => importing(isPause, openStore)

function importing(isWanted: (archive: Archive) => boolean, openStore: OpenStore): Task<MachineTaskContext> {
  return {
    name: 'images',
    purpose: 'import images',
    leaderOnly: false,
    async run(context, signal) {
      const { payload, paths, board, log } = context
      const there = await look(paths.imagesDir).catch(() => ({ archives: [] }))
      if (there.archives.length === 0) context.reached('archives')
      // Pods whose images are there need not wait for a runtime, or an archive, that hangs.
      else setTimeout(() => context.reached('archives'), archivesLimitMs).unref()
      await context.whenReady('cri')
      const archives = new Archives(context, openStore(context, signal), signal)
      // The part `images` is that of archives.
      const trouble = new Trouble({ name: 'image store', purpose: 'look after images', board, log })
      const retry = { trouble, signal }
      await untilDone(() => archives.open(), retry)
      let own: readonly Archive[] = []
      await untilDone(
        async () => void (own = (await look(payload.imagesDir)).archives.filter(isWanted)),
        retry,
      )
      await archives.import(own.filter(isPause))
      await untilDone(() => archives.follow(paths.imagesDir), retry)
      context.reached('archives')
      await context.whenReady('node')
      await archives.import(own)
      context.reached('images')
      for (;;) {
        await untilDone(() => archives.noteImages(), retry)
        await sleep(lookIntervalMs, undefined, { signal, ref: false })
        await untilDone(() => archives.follow(paths.imagesDir), retry)
        await archives.import(own)
      }
    },
  }
}

/** containerd may be starting again just now. */
async function untilDone(
  work: () => Promise<void>,
  { trouble, signal }: { trouble: Trouble; signal: AbortSignal },
): Promise<void> {
  while (!(await trouble.attempt(work, signal))) {
    await sleep(lookIntervalMs, undefined, { signal, ref: false })
  }
}

function isPause({ path }: Archive): boolean {
  return basename(path) === pauseArchive
}

interface Archive {
  readonly path: string
  readonly sizeBytes: number
  readonly modifiedMs: number
}

/** What was imported, by archive; kept beside containerd's own data, so that it is lost with it. */
type ImportRecord = Record<string, Omit<Archive, 'path'> & { readonly images?: readonly string[] }>

/** One that did not change since its import is passed over while its images are there. */
class Archives {
  readonly #context: MachineTaskContext
  readonly #signal: AbortSignal
  readonly #store: ImageStore
  readonly #problems = new Map<string, string>()
  /** As the directory was at the look before. */
  #former: Map<string, Archive> | undefined
  /** Those that could not be imported, as they were, and when. */
  readonly #failed = new Map<string, { archive: Archive; atMs: number }>()
  #record: ImportRecord = {}

  constructor(context: MachineTaskContext, store: ImageStore, signal: AbortSignal) {
    this.#context = context
    this.#store = store
    this.#signal = signal
  }

  /** Forgets the imports whose images somebody has removed: they come back. */
  async open(): Promise<void> {
    const entries = Object.entries(await readRecord(this.#store.recordFile)).filter(([path]) =>
      existsSync(path),
    )
    const present = new Set(entries.length === 0 ? [] : await this.#store.list())
    this.#record = Object.fromEntries(
      entries.filter(([, { images = [] }]) => images.every((image) => present.has(image))),
    )
  }

  /** Writes down which images the archives had: not while the cluster starts, as it takes a process for each. */
  async noteImages(): Promise<void> {
    for (const [path, entry] of Object.entries(this.#record)) {
      if (entry.images !== undefined) continue
      this.#record[path] = { ...entry, images: await this.#store.imagesOf(path) }
      this.#save()
    }
  }

  /** Imports what is new or has changed in a directory, once it stays as it is. */
  async follow(dir: string): Promise<void> {
    const { archives, others } = await look(dir)
    const former = this.#former
    const settled = archives.filter(
      (archive) => former === undefined || isSame(former.get(archive.path), archive),
    )
    const names = new Set([...archives.map(({ path }) => path), ...others.keys()])
    for (const path of this.#problems.keys()) {
      if (path.startsWith(`${dir}/`) && !names.has(path)) this.#problems.delete(path)
    }
    for (const [path, reason] of others) this.#tell(path, reason)
    await this.import(settled)
    this.#former = new Map(archives.map((archive) => [archive.path, archive]))
  }

  async import(archives: readonly Archive[]): Promise<void> {
    for (const archive of archives) {
      const { path } = archive
      if (isSame(this.#record[path], archive) || this.#hasJustFailed(archive)) continue
      const failure = await this.#importOne(archive).then(() => undefined, describeError)
      if (this.#signal.aborted) return
      if (failure === undefined) {
        this.#failed.delete(path)
        this.#problems.delete(path)
        this.#context.log.info({ archive: path }, 'imported images')
      } else {
        this.#failed.set(path, { archive, atMs: performance.now() })
        this.#tell(path, `it must be an OCI or Docker archive, ${allowedNames}: ${reasonOf(failure)}`)
      }
    }
    this.#report()
  }

  #hasJustFailed(archive: Archive): boolean {
    const failed = this.#failed.get(archive.path)
    return (
      failed !== undefined &&
      isSame(failed.archive, archive) &&
      performance.now() - failed.atMs < retryIntervalMs
    )
  }

  async #importOne({ path, ...state }: Archive): Promise<void> {
    const images = await this.#store.load(path)
    this.#record[path] = { ...state, ...(images && { images }) }
    this.#save()
  }

  /** At once after each import: a stop may come at any time. */
  #save(): void {
    writeFileAtomicallySync(this.#store.recordFile, `${JSON.stringify(this.#record, undefined, 2)}\n`, {
      mode: privateMode,
    })
  }

  #tell(path: string, reason: string): void {
    if (this.#problems.get(path) === reason) return
    this.#problems.set(path, reason)
    this.#context.log.error({ archive: path, reason }, 'cannot import images')
  }

  #report(): void {
    const problems = [...this.#problems].map(([path, reason]) => `cannot import ${path}: ${reason}`)
    this.#context.board.report(
      problems.length === 0
        ? { name: 'images', state: 'ready' }
        : { name: 'images', state: 'degraded', message: problems.join('; ') },
    )
  }
}

/** What ctr says itself in the end, without its command and what it warns of before. */
function reasonOf(failure: string): string {
  const said = /^ctr: (.+)$/m.exec(failure)?.[1] ?? failure
  return said === 'image might be filtered out'
    ? "none of its images is for this machine's architecture"
    : said
}

function isSame(one: Omit<Archive, 'path'> | undefined, other: Omit<Archive, 'path'>): boolean {
  return one?.sizeBytes === other.sizeBytes && one.modifiedMs === other.modifiedMs
}

/** The archives of a directory by name, and what else is there with the reason why it is not imported. */
async function look(dir: string): Promise<{ archives: Archive[]; others: Map<string, string> }> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  const archives: Archive[] = []
  const others = new Map<string, string>()
  for (const name of names.filter((name) => !name.startsWith('.')).sort()) {
    const path = join(dir, name)
    const found = await stat(path).catch(() => undefined)
    if (found === undefined) {
      // Otherwise it was removed just now.
      if (await isLink(path)) others.set(path, 'it is a link that leads nowhere')
    } else if (found.isDirectory())
      others.set(path, 'it is a directory: pack an OCI layout with tar -C DIR -cf NAME.tar .')
    else if (!archivePattern.test(name)) others.set(path, `its name must end in ${allowedNames}`)
    // A pipe would be waited for, and all other images with it.
    else if (!found.isFile()) others.set(path, 'it is no plain file')
    else archives.push({ path, sizeBytes: found.size, modifiedMs: found.mtimeMs })
  }
  return { archives, others }
}

async function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (stats) => stats.isSymbolicLink(),
    () => false,
  )
}

/** Of one that somebody has damaged, what can be understood: the rest is imported again. */
async function readRecord(file: string): Promise<ImportRecord> {
  const text = await readFile(file, 'utf8').catch(() => '{}')
  try {
    const record = (JSON.parse(text) ?? {}) as Readonly<Record<string, unknown>>
    return Object.fromEntries(Object.entries(record).filter(isRecorded))
  } catch {
    return {}
  }
}

function isRecorded(entry: [string, unknown]): entry is [string, ImportRecord[string]] {
  const { sizeBytes, modifiedMs, images = [] } = (entry[1] ?? {}) as Partial<ImportRecord[string]>
  return typeof sizeBytes === 'number' && typeof modifiedMs === 'number' && Array.isArray(images)
}
