import { AppError } from '../../base/errors.ts'
import { storageIn } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { etcdClientUrl } from '../../config/ports.ts'
import type { EtcdServer } from '../../datastore/datastore.ts'

/** Until a member is taken to be away. */
export const answerLimitMs = 10_000

/** This server's member, and how to speak with it. Throws NO_ETCD_MEMBER where it has none; `action` is what cannot be done. */
export async function ownMember({ dataDir, pkiDir }: Paths, action: string): Promise<EtcdServer> {
  const storage = storageIn(dataDir)
  if (storage !== 'etcd-member') {
    throw new AppError(
      `cannot ${action}: ${storage === 'embedded' ? `the cluster of ${dataDir} is not kept in an etcd` : 'others run the etcd of this cluster'}`,
      {
        code: 'NO_ETCD_MEMBER',
        remedy:
          storage === 'embedded'
            ? 'a server alone keeps it in its own database: k8s db compact'
            : 'use etcdctl there',
      },
    )
  }
  const { etcdClientIdentity, etcdPkiFiles } = await import('../../pki/etcd.ts')
  return { address: etcdClientUrl, tls: etcdClientIdentity(etcdPkiFiles(pkiDir)) }
}
