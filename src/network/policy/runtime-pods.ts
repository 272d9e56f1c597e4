import { join } from 'node:path'
import type { HostFiles } from '../../node/facts/host-files.ts'
import { cniResultsDir } from '../../node/firewall/port-mappings.ts'
import { ordinaryAddress } from '../untrusted.ts'
import type { RuntimePod } from './engine.ts'

/** libcni/api.go: cachedInfo. */
interface CachedInfo {
  readonly netns?: unknown
  readonly cniArgs?: unknown
  readonly result?: { readonly ips?: unknown }
}

interface Entry {
  readonly netns: string
  readonly pod: RuntimePod
  readonly addresses: readonly string[]
}

/**
 * Which pods have addresses of this node, by what libcni keeps of each: it is there before the first container of a pod
 * starts, and gone when its network is.
 */
export class RuntimePods {
  readonly #files: HostFiles
  /** A file is written once. */
  readonly #known = new Map<string, Entry>()

  constructor(files: HostFiles) {
    this.#files = files
  }

  read(): Map<string, RuntimePod> {
    const names = this.#files.list(cniResultsDir)
    const present = new Set(names)
    for (const name of this.#known.keys()) if (!present.has(name)) this.#known.delete(name)
    const pods = new Map<string, RuntimePod>()
    for (const name of names) {
      const entry = this.#known.get(name) ?? readEntry(this.#files.read(join(cniResultsDir, name)))
      if (entry === undefined) continue
      this.#known.set(name, entry)
      // A reboot leaves files of pods that are no more.
      if (!this.#files.exists(entry.netns)) continue
      for (const address of entry.addresses) pods.set(address, entry.pod)
    }
    return pods
  }
}

/** undefined: it is none, or not written to its end yet. */
function readEntry(text: string | undefined): Entry | undefined {
  let info: CachedInfo
  try {
    info = JSON.parse(text ?? '') as CachedInfo
  } catch {
    return undefined
  }
  const { netns, cniArgs, result } = info
  if (typeof netns !== 'string' || !Array.isArray(cniArgs) || !Array.isArray(result?.ips)) return undefined
  const given = new Map(cniArgs as [string, string][])
  const [namespace, name, uid] = ['K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_UID'].map((key) =>
    given.get(key),
  )
  if (namespace === undefined || name === undefined || uid === undefined) return undefined
  const addresses = (result.ips as { address?: unknown }[]).flatMap(
    ({ address }) => ordinaryAddress(String(address).split('/')[0]) ?? [],
  )
  return { netns, pod: { namespace, name, uid }, addresses }
}
