import { readTlsIdentity } from '../base/tls-files.ts'
import { etcd, etcdClientUrl } from '../components/etcd.ts'
import { processComponent } from '../components/process-component.ts'
import { EtcdProxy } from './etcd-proxy.ts'
import { etcdStorage } from './etcd-storage.ts'
import type { Storage, StorageOptions } from './storage.ts'

/** The etcd of the servers themselves: this one's member is a component, and the daemon stands in front of it as of any other. */
export function etcdMember(options: StorageOptions): Storage {
  const { authority, leaves } = options.pki.etcd
  const tls = () => readTlsIdentity({ caFile: authority.certFile, ...leaves.client })
  const proxy = new EtcdProxy({ ...options, endpoints: [etcdClientUrl], tls, isOwn: true })
  return {
    ...etcdStorage(options, [processComponent(etcd(options), options), proxy]),
    member: { address: etcdClientUrl, tls },
  }
}
