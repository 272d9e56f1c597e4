import { readTlsIdentity } from '../base/tls-files.ts'
import { etcd, etcdPeerUrl } from '../components/etcd.ts'
import { processComponent } from '../components/process-component.ts'
import { etcdClientUrl } from '../config/ports.ts'
import { EtcdProxy } from './etcd-proxy.ts'
import { etcdStorage } from './etcd-storage.ts'
import { MemberCare } from './member-care.ts'
import type { Storage, StorageOptions } from './storage.ts'

/** The etcd of the servers themselves: this one's member is a component, and the daemon stands in front of it as of any other. */
export function etcdMember(options: StorageOptions): Storage {
  const { authority, leaves } = options.pki.etcd
  const tls = () => readTlsIdentity({ caFile: authority.certFile, ...leaves.client })
  const proxy = new EtcdProxy({ ...options, endpoints: [etcdClientUrl], tls, isOwn: true })
  return {
    ...etcdStorage(options, [processComponent(etcd(options), options), proxy]),
    care: new MemberCare({
      server: () => ({ address: etcdClientUrl, tls: tls() }),
      peerUrl: () => etcdPeerUrl(options.addresses().nodeIp),
      log: options.log.child({ component: 'etcd' }),
    }),
  }
}
