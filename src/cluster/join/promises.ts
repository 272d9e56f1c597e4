import type { Api } from '../../api/client.ts'
import { promisesName } from './verdict.ts'

/** To whom the names of Nodes that have not come yet are promised. */
export interface Promises {
  /** By the name: the hash of an agent's key, or what a server is known by. */
  readonly names: ReadonlyMap<string, string>
  /** Of the ConfigMap; undefined: it is not there yet. */
  readonly resourceVersion: string | undefined
}

const [namespace, name] = promisesName.split('/') as [string, string]
const collection = `/api/v1/namespaces/${namespace}/configmaps`
const path = `${collection}/${name}`

export async function readPromises(api: Pick<Api, 'get'>): Promise<Promises> {
  const found = await api.get<{
    readonly metadata: { readonly resourceVersion: string }
    readonly data?: Readonly<Record<string, string>>
  }>(path)
  return {
    names: new Map(Object.entries(found?.data ?? {})),
    resourceVersion: found?.metadata.resourceVersion,
  }
}

/** Whether they were written; not, when somebody else has written since they were read. */
export async function writePromises(
  api: Pick<Api, 'create' | 'replace'>,
  { names, resourceVersion }: Promises,
): Promise<boolean> {
  const object = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { namespace, name, ...(resourceVersion !== undefined && { resourceVersion }) },
    data: Object.fromEntries(names),
  }
  const written = await (resourceVersion === undefined
    ? api.create(collection, object)
    : api.replace(path, object))
  return written !== undefined
}
