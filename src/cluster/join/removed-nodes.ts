import { removedNodes } from '../../addons/removed-nodes.ts'
import { request, type TlsIdentity } from '../../base/http.ts'
import type { ClusterApi } from './cluster-api.ts'

export { removedNodes }

const path = `/api/v1/namespaces/${removedNodes.namespace}/configmaps/${removedNodes.name}`

interface RemovedNodes {
  readonly data?: Readonly<Record<string, string>>
}

/** When the Node was removed for good, as its machine is told; undefined: it was not. Rejects when there is no answer. */
export async function removedAt(
  nodeName: string,
  { server, tls, signal }: { server: string; tls: TlsIdentity; signal: AbortSignal },
): Promise<string | undefined> {
  const { status, body } = await request({ url: server + path, tls, signal })
  // Where nobody has joined with a token, kubelets may not read it.
  if (status === 404 || status === 403) return undefined
  if (status !== 200) throw new Error(`${server}${path} answers ${status}`)
  const { data = {} } = JSON.parse(body) as RemovedNodes
  return Object.hasOwn(data, nodeName) ? String(data[nodeName]).slice(0, 50) : undefined
}

export async function namesOfRemoved(api: Pick<ClusterApi, 'get'>): Promise<ReadonlySet<string>> {
  return new Set(Object.keys((await api.get<RemovedNodes>(path))?.data ?? {}))
}

/** A machine joins under this name again. Whether it may: not while somebody else writes the names at the same time. */
export async function takeBack(api: ClusterApi, nodeName: string): Promise<boolean> {
  const found = await api.get<RemovedNodes>(path)
  const { [nodeName]: at, ...data } = found?.data ?? {}
  return at === undefined || api.write('PUT', path, { ...found, data })
}
