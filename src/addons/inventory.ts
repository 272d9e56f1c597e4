import type { Api } from '../api/client.ts'
import type { LiveObject, Manifest, ObjectName } from '../api/objects.ts'

/**
 * What the add-ons have brought into this cluster, so that it can be taken away when it is not wanted any more. It is kept
 * in the cluster, as it travels with it; what is removed must besides be ours by its managed fields, since
 * whoever writes ConfigMaps could name the objects of others here.
 */
const inventoryName = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'k8s-addons', namespace: 'kube-system' },
} as const

export class Inventory {
  readonly #api: Api
  /** undefined: this cluster has none yet. */
  readonly objects: readonly ObjectName[] | undefined

  private constructor(api: Api, objects: readonly ObjectName[] | undefined) {
    this.#api = api
    this.objects = objects
  }

  static async read(api: Api): Promise<Inventory> {
    return new Inventory(api, objectsOf(await api.get(inventoryName)))
  }

  /** Writes it where it differs. */
  async write(objects: readonly ObjectName[]): Promise<Inventory> {
    const names = objects.map(nameOf)
    if (JSON.stringify(this.objects) === JSON.stringify(names)) return this
    const manifest: Manifest = { ...inventoryName, data: { objects: JSON.stringify(names) } }
    await this.#api.apply(manifest)
    return new Inventory(this.#api, names)
  }
}

export function nameOf({ apiVersion, kind, metadata }: ObjectName): ObjectName {
  const { name, namespace } = metadata
  return { apiVersion, kind, metadata: { name, ...(namespace !== undefined && { namespace }) } }
}

/** One that somebody has damaged counts as none. */
function objectsOf(live: LiveObject | undefined): readonly ObjectName[] | undefined {
  const text = (live?.['data'] as Readonly<Record<string, string>> | undefined)?.['objects']
  try {
    const parsed: unknown = JSON.parse(text ?? '')
    return Array.isArray(parsed) && parsed.every(isObjectName) ? parsed.map(nameOf) : undefined
  } catch {
    return undefined
  }
}

/** Names become a path at the API server: one that could lead to another object by it is none. */
const patterns = {
  apiVersion: /^[a-z0-9.-]+(\/[a-z0-9]+)?$/,
  kind: /^[A-Za-z]+$/,
  name: /^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$/,
} as const

function isObjectName(given: unknown): given is ObjectName {
  const { apiVersion, kind, metadata } = (given ?? {}) as Partial<ObjectName>
  const { name, namespace = 'none' } = metadata ?? {}
  const is = (pattern: RegExp, text: unknown) => typeof text === 'string' && pattern.test(text)
  return (
    is(patterns.apiVersion, apiVersion) &&
    is(patterns.kind, kind) &&
    is(patterns.name, name) &&
    is(patterns.name, namespace)
  )
}
