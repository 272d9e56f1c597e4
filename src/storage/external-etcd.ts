import { readTlsIdentity } from '../base/tls-files.ts'
import { EtcdProxy } from './etcd-proxy.ts'
import { etcdStorage } from './etcd-storage.ts'
import type { Storage, StorageOptions } from './storage.ts'

/** An etcd that others run: the daemon stands in front of its members. */
export function externalEtcd(options: StorageOptions): Storage {
  const { etcdEndpoints: endpoints = [], ...config } = options.config
  const { etcdCaFile: caFile, etcdCertFile: certFile, etcdKeyFile: keyFile } = config
  const tls = () => readTlsIdentity({ caFile, certFile, keyFile })
  return etcdStorage(options, [new EtcdProxy({ ...options, endpoints, tls })])
}
