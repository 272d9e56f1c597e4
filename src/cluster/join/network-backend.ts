import type { Api } from '../../api/client.ts'

/** How pods of different nodes reach each other, as the servers have written it down (addons/joining.ts); undefined: it is not known. */
export async function networkBackendOf(api: Pick<Api, 'get'>): Promise<string | undefined> {
  const path = '/api/v1/namespaces/kube-system/configmaps/kubeadm-config'
  const found = await api.get<{ readonly data?: Readonly<Record<string, string>> }>(path)
  return found?.data?.['network-backend']
}
