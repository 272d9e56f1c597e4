import { removedNodes } from '../../addons/removed-nodes.ts'
import type { Api } from '../../api/client.ts'
import { isStatus } from '../../base/errors.ts'

export { removedNodes }

const path = `/api/v1/namespaces/${removedNodes.namespace}/configmaps/${removedNodes.name}`

interface RemovedNodes {
  readonly data?: Readonly<Record<string, string>>
}

/** When the Node was removed for good, as its machine is told; undefined: it was not. Rejects when there is no answer. */
export async function removedAt(nodeName: string, api: Pick<Api, 'get'>): Promise<string | undefined> {
  const found = await api.get<RemovedNodes>(path).catch((error: unknown) => {
    // Where nobody has joined with a token, kubelets may not read it.
    if (!isStatus(error, 403)) throw error
  })
  const { data = {} } = found ?? {}
  return Object.hasOwn(data, nodeName) ? String(data[nodeName]).slice(0, 50) : undefined
}

export async function namesOfRemoved(api: Pick<Api, 'get'>): Promise<ReadonlySet<string>> {
  return new Set(Object.keys((await api.get<RemovedNodes>(path))?.data ?? {}))
}

/** A machine joins under this name again. Whether it may: not while somebody else writes the names at the same time. */
export async function takeBack(api: Api, nodeName: string): Promise<boolean> {
  const found = await api.get<RemovedNodes>(path)
  const { [nodeName]: at, ...data } = found?.data ?? {}
  return at === undefined || (await api.replace(path, { ...found, data })) !== undefined
}
