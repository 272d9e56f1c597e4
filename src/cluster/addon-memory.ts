import { basename } from 'node:path'
import { listPids, readExecutable, readFirstArgument, readProportionalBytes } from '../base/proc.ts'
import type { PartStatus } from '../control/messages.ts'

/** The program of all add-ons, in their image: components/addons. */
const program = '/addons'
/** What it is called by, and the add-on that it is then. */
const addons = new Map([
  ['coredns', 'coredns'],
  ['metrics-server', 'metrics-server'],
  ['local-path-provisioner', 'local-storage'],
])

/** The memory costs the kernel a walk through all of it: whoever waits for a start asks four times a second. */
const ageLimitMs = 2_000

/** What the pods of add-ons on this node use, beside the components. */
export class AddonMemory {
  #seen: { readonly atMs: number; readonly bytes: ReadonlyMap<string, number> } | undefined

  /** The parts, with the memory of those that have pods here; on a machine that does not keep the add-ons, such pods are all that it says of them. */
  addTo(parts: readonly PartStatus[], nowMs = performance.now()): PartStatus[] {
    if (this.#seen === undefined || nowMs - this.#seen.atMs > ageLimitMs)
      this.#seen = { atMs: nowMs, bytes: look() }
    const { bytes } = this.#seen
    const others = [...bytes.keys()].filter((name) => parts.every((part) => part.name !== name))
    return [...parts, ...others.map((name) => ({ name, state: 'ready' }) as const)].map((part) => {
      const memoryBytes = bytes.get(part.name)
      return memoryBytes === undefined ? part : { ...part, memoryBytes }
    })
  }
}

function look(): Map<string, number> {
  const bytes = new Map<string, number>()
  for (const pid of listPids()) {
    if (readExecutable(pid) !== program) continue
    const name = addons.get(basename(readFirstArgument(pid) ?? ''))
    if (name === undefined) continue
    bytes.set(name, (bytes.get(name) ?? 0) + (readProportionalBytes(pid) ?? 0))
  }
  return bytes
}
