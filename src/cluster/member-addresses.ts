import type { Manifest } from '../api/objects.ts'
import { clientUrl } from '../config/table/kinds.ts'
import { Refused } from '../config/table/option.ts'

/** Where the members of the servers' etcd serve, for servers that join: the cluster's API does not tell it otherwise. */
export type MemberAddresses = readonly string[]

const metadata = { name: 'k8s-etcd-members', namespace: 'kube-system' }
export const memberAddressesPath = `/api/v1/namespaces/${metadata.namespace}/configmaps/${metadata.name}`
/** etcd itself advises no more than seven. */
const membersLimit = 20

export function memberAddressesManifest(addresses: MemberAddresses): Manifest {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { members: addresses.join(',') } }
}

/** Empty: it does not say. */
export function readMemberAddresses(found: object | undefined): MemberAddresses {
  const { data } = (found ?? {}) as { data?: { members?: unknown } }
  const text = typeof data?.members === 'string' ? data.members : ''
  const urls = text.split(',').slice(0, membersLimit)
  return urls.filter((url) => url.startsWith('https://') && !(clientUrl.parse(url) instanceof Refused))
}
