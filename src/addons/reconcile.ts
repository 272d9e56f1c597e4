/*
 * One pass brings the cluster to what is wanted:
 *
 *    for each object      there and as we left it ──▶ nothing
 *                         gone, or changed since  ──▶ applied (server-side apply)
 *                         annotated as the user's ──▶ left alone
 *    then                 in the inventory and not wanted ──▶ removed, if it is ours
 *
 * The inventory is written before the first object, so that nothing that was made is ever missing from it.
 */
import { type Api, fieldManager } from '../api/client.ts'
import { isKnownKind, type LiveObject, type Manifest, type ObjectName, objectPath } from '../api/objects.ts'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { Inventory, nameOf } from './inventory.ts'

/** `kubectl annotate ... k8s.local/owner=user`: the object is changed and removed by nobody but its user. */
const ownerAnnotation = 'k8s.local/owner'

/** Objects that belong together and come and go at once, in the order in which they are applied. */
export interface Addon {
  readonly name: string
  readonly manifests: readonly Manifest[]
}

interface ReconcileOptions {
  readonly api: Api
  /** In the order in which they are applied. */
  readonly wanted: readonly Addon[]
  /** Those of them that are not applied yet, and not removed either. */
  readonly held?: readonly Addon[]
  /** What an earlier version may have brought to a cluster that has no inventory yet. */
  readonly known: readonly Addon[]
  /** Default: true. Otherwise what is not wanted stays for now. */
  readonly mayRemove?: boolean
  readonly log: Logger
}

/** Keeps what was seen between passes, so that an object that nobody touched costs one read. */
export class Reconciler {
  /** By path: the version of the object as we left it, and of what was applied. */
  readonly #applied = new Map<string, { resourceVersion: string; text: string }>()

  /** The reasons why an add-on is not applied in full, by its name; the pass goes on with the others. */
  async pass({
    api,
    wanted,
    held = [],
    known,
    mayRemove = true,
    log,
  }: ReconcileOptions): Promise<ReadonlyMap<string, string>> {
    const inventory = await Inventory.read(api)
    const names = wanted.flatMap(({ manifests }) => manifests.map(nameOf))
    const before = inventory.objects ?? known.flatMap(({ manifests }) => manifests.map(nameOf))
    const paths = new Set(names.map(objectPath))
    const surplus = before.filter((name) => isKnownKind(name) && !paths.has(objectPath(name)))
    const written = await inventory.write([...names, ...surplus])
    const failures = new Map<string, string>()
    for (const { name, manifests } of wanted.filter((addon) => !held.includes(addon))) {
      for (const manifest of manifests) {
        await this.#keep(api, manifest, log).catch((error: unknown) => {
          if (!failures.has(name)) failures.set(name, describeError(error))
        })
      }
    }
    if (!mayRemove) return failures
    const left: ObjectName[] = []
    // What refers to others came after them, and goes before.
    for (const name of surplus.toReversed()) {
      await this.#prune(api, name, log).catch((error: unknown) => {
        left.unshift(name)
        log.warn(
          { reason: describeError(error) },
          'cannot remove what is not wanted any more; it is tried again',
        )
      })
    }
    await written.write([...names, ...left])
    return failures
  }

  async #keep(api: Api, manifest: Manifest, log: Logger): Promise<void> {
    const path = objectPath(manifest)
    const text = JSON.stringify(manifest)
    const known = this.#applied.get(path)
    const live = await api.get(manifest)
    if (live !== undefined && isUsers(live)) return
    if (live !== undefined && known?.resourceVersion === live.metadata.resourceVersion && known.text === text)
      return
    const { metadata } = await api.apply(manifest)
    this.#applied.set(path, { resourceVersion: metadata.resourceVersion, text })
    const isChanged = live?.metadata.resourceVersion !== metadata.resourceVersion
    if (isChanged) log.info({ kind: manifest.kind, name: manifest.metadata.name }, 'applied')
  }

  async #prune(api: Api, name: ObjectName, log: Logger): Promise<void> {
    this.#applied.delete(objectPath(name))
    const live = await api.get(name)
    if (live === undefined || isUsers(live) || !isOurs(live)) return
    await api.remove(name, live.metadata.uid)
    log.info({ kind: name.kind, name: name.metadata.name }, 'removed, as it is not wanted any more')
  }
}

export function isUsers({ metadata }: LiveObject): boolean {
  return metadata.annotations?.[ownerAnnotation] === 'user'
}

/** To apply an object one must be allowed to write it: nobody can have us remove what he could not remove himself. */
export function isOurs({ metadata }: LiveObject): boolean {
  return (metadata.managedFields ?? []).some(
    ({ manager, operation }) => manager === fieldManager && operation === 'Apply',
  )
}
