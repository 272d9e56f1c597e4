import { type Stats, statSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, errorCode } from '../../base/errors.ts'
import { request } from '../../base/http.ts'
import type { Logger } from '../../base/logger.ts'
import type { KubeletContext } from '../../components/component.ts'
import { kubeletUrl } from '../../config/ports.ts'
import { readYamlFile } from '../../config/table/file.ts'
import { kubeletClientIdentity } from '../../pki/kubelet.ts'
import type { RecordListener } from '../../supervisor/logs.ts'
import type { MachineTaskContext, Task } from '../tasks/task.ts'
import {
  isUp,
  type PodList,
  podProblems,
  type Rejection,
  rejectionIn,
  sharedNames,
  staticPods,
} from './rejections.ts'

/** Until all that is there runs for the first time, and then. */
const startIntervalMs = 500
const lookIntervalMs = 5_000
/** The kubelet reads the directory every 20 s (fileCheckFrequency in node/render/kubelet-alone.ts). */
const settlingMs = 30_000
/** A file that was rejected while somebody was still writing it is rejected no more by then. */
const repetitionMs = 45_000
const othersMayWrite = 0o022
const partName = 'static pods'

/** Which files the kubelet makes no pods of: it says so at each look of its own, and here it is told once. */
export class Rejections {
  readonly #manifests: string
  readonly #log: Logger
  readonly #known = new Map<string, Rejection & { version: string; heardMs: number }>()

  constructor(manifests: string, log: Logger) {
    this.#manifests = manifests
    this.#log = log
  }

  readonly listen: RecordListener = (record) => {
    const rejection = rejectionIn(record)
    if (rejection === undefined) return false
    const { path, reason } = rejection
    // The directory itself has changed.
    if (path === this.#manifests) return true
    const isKnown = this.#known.get(path)?.reason === reason
    // As it is now: the kubelet has just read it.
    const version = versionOf(statSync(path, { throwIfNoEntry: false }))
    this.#known.set(path, { ...rejection, version, heardMs: performance.now() })
    if (!isKnown) this.#log.error({ file: path, reason }, 'the kubelet makes no pod of the file')
    return true
  }

  /** Forgets those that are gone or have changed, or that the kubelet does not repeat; `files` has what is there. */
  look(files: ReadonlyMap<string, string>, nowMs = performance.now()): readonly Rejection[] {
    for (const [path, { version, heardMs }] of this.#known) {
      const isSame = files.get(path) === version && nowMs - heardMs < repetitionMs
      if (!isSame) this.#known.delete(path)
    }
    return [...this.#known.values()]
  }
}

/** Tells which static pods do not run, and why. */
export function staticPodsTask(given: KubeletContext, rejections: Rejections): Task<MachineTaskContext> {
  return {
    name: 'static-pods',
    purpose: 'look after static pods',
    leaderOnly: false,
    async run({ board, isReady, log }, signal) {
      const watch = new PodWatch(given, rejections)
      let wereUp = false
      let told: readonly string[] = []
      for (;;) {
        await sleep(wereUp ? lookIntervalMs : startIntervalMs, undefined, { signal, ref: false })
        if (!isReady('kubelet')) continue
        try {
          const { rejected, problems, areUp } = await watch.look(signal)
          const message = [...rejected, ...problems].join('; ')
          // Those that were rejected are told.
          for (const reason of problems)
            if (!told.includes(reason)) log.error({ reason }, 'not all static pods run as their files say')
          told = problems
          wereUp ||= areUp
          if (message !== '') board.report({ name: partName, state: 'degraded', message })
          else board.report({ name: partName, state: wereUp ? 'ready' : 'pending' })
        } catch (error) {
          signal.throwIfAborted()
          log.debug({ reason: describeError(error) }, 'cannot ask the kubelet for its pods')
        }
      }
    },
  }
}

class PodWatch {
  readonly #context: KubeletContext
  readonly #rejections: Rejections
  /** Since when there are fewer pods than files. */
  #missingSince: { count: number; atMs: number } | undefined

  constructor(context: KubeletContext, rejections: Rejections) {
    this.#context = context
    this.#rejections = rejections
  }

  async look(signal: AbortSignal): Promise<{ rejected: string[]; problems: string[]; areUp: boolean }> {
    const { config, pki } = this.#context
    const files = await readManifests(config.manifests)
    const rejected = this.#rejections.look(files)
    const { status, body } = await request({
      url: `${kubeletUrl(config.kubeletBindAddress)}/pods`,
      tls: kubeletClientIdentity(pki),
      signal,
    })
    if (status !== 200) throw new Error(`the kubelet answers ${status}`)
    const pods = staticPods(JSON.parse(body) as PodList)
    const accepted = [...files.keys()].filter((path) => !rejected.some((one) => one.path === path))
    const shared = await this.#sharedNames(accepted, pods.length)
    return {
      rejected: rejected.map(({ path, reason }) => `${basename(path)}: ${reason}`),
      problems: [...(await openToOthers(config.manifests)), ...shared, ...podProblems(pods)],
      areUp: pods.length >= accepted.length && pods.every(isUp),
    }
  }

  /** Looks into the files only where some of them have no pod, and for longer than the kubelet needs. */
  async #sharedNames(accepted: readonly string[], podCount: number): Promise<string[]> {
    const count = accepted.length - podCount
    if (count <= 0) {
      this.#missingSince = undefined
      return []
    }
    if (this.#missingSince?.count !== count) this.#missingSince = { count, atMs: performance.now() }
    if (performance.now() - this.#missingSince.atMs < settlingMs) return []
    const named = await Promise.all(
      accepted.map(async (path) => {
        const { metadata } = await readYamlFile(path).catch(() => ({}) as { metadata?: unknown })
        const { name = '', namespace = 'default' } = (metadata ?? {}) as { name?: string; namespace?: string }
        return { path, name: `${namespace}/${name}` }
      }),
    )
    return sharedNames(named)
  }
}

/** Who can write there is root on this machine. */
async function openToOthers(dir: string): Promise<string[]> {
  const found = await stat(dir).catch(() => undefined)
  if (found === undefined || (found.uid === 0 && (found.mode & othersMayWrite) === 0)) return []
  return [
    `others than root can write into ${dir}, and what they put there runs as root: chown root, chmod go-w`,
  ]
}

/** The files that the kubelet looks at, each with what changes when it does. */
async function readManifests(dir: string): Promise<Map<string, string>> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  const paths = names.filter((name) => !name.startsWith('.')).map((name) => join(dir, name))
  const entries = await Promise.all(
    paths.toSorted().map(async (path): Promise<[string, string]> => {
      return [path, versionOf(await stat(path).catch(() => undefined))]
    }),
  )
  return new Map(entries)
}

/** What changes when the file does; undefined: a link leads nowhere. */
export function versionOf(found: Stats | undefined): string {
  return found === undefined ? '' : `${found.ino} ${found.size} ${found.ctimeMs}`
}
