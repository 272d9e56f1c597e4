import { AppError, errorCode } from '../../base/errors.ts'
import { portableRecord, readFacts } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { schema } from '../../config/schema.ts'
import type { Payload } from '../../payload/payload.ts'
import type { SnapshotSource } from '../../snapshot/save.ts'

const statusLimitMs = 10_000
/** By which it may have grown since it was asked for its size, beside twice that. */
const growthBytes = 256 * 1024 * 1024

/**
 * An etcd, by the socket of the daemon in front of it: what is below the prefix of the cluster becomes a database as one server alone
 * has it, so that there is one kind of snapshot, which anybody can go on with.
 */
export async function ofEtcd(
  paths: Paths,
  payload: Pick<Payload, 'bin' | 'sqliteAddon'>,
): Promise<SnapshotSource> {
  const [{ fetchEtcdSnapshot }, { importEtcdFile }, { Member }, { rm }] = await Promise.all([
    import('../../datastore/etcd-snapshot.ts'),
    import('../../datastore/transfer/etcd.ts'),
    import('../../datastore/member.ts'),
    import('node:fs/promises'),
  ])
  const server = { address: `unix://${paths.datastoreSocket}` }
  const own = String(schema['etcd-prefix'].default)
  const prefix = readFacts(paths.dataDir).cluster['etcd-prefix'] ?? own
  const status = async () => {
    using member = new Member(server)
    return await member.status(AbortSignal.timeout(statusLimitMs)).catch((error: unknown) => {
      throw withoutDaemon(error)
    })
  }
  /** etcd tells it with every answer but with that of a snapshot. */
  const clusterIdOf = async () => {
    using member = new Member(server)
    const { clusterId } = await member.read(prefix, {
      isLocal: true,
      signal: AbortSignal.timeout(statusLimitMs),
    })
    return clusterId
  }
  return {
    async neededBytes() {
      const { bytes, bytesInUse } = await status()
      // The file of etcd, and the database that is made of it.
      return bytes + bytesInUse * 1.5
    },
    async copy(target) {
      const file = `${target}.etcd`
      try {
        const limitBytes = (await status()).bytes * 2 + growthBytes
        await fetchEtcdSnapshot({ server, path: file, limitBytes })
        const clusterId = await clusterIdOf()
        await importEtcdFile({
          database: { path: target, nativeBinding: payload.sqliteAddon },
          program: payload.bin('etcd-file'),
          file,
          wantsDigest: true,
          prefix: { from: prefix, to: own },
        })
        return {
          ...(clusterId !== undefined && { cluster: clusterId.toString(16) }),
          facts: portableRecord(paths),
        }
      } finally {
        await rm(file, { force: true })
      }
    },
  }
}

function withoutDaemon(cause: unknown): unknown {
  if (errorCode(cause) !== 'DATASTORE_UNREACHABLE') return cause
  return new AppError(
    'cannot take a snapshot: the etcd of this cluster does not answer at the socket of the daemon',
    { code: 'SNAPSHOT_ETCD_AWAY', remedy: 'start k8s where it does not run; k8s status says how etcd is' },
    { cause },
  )
}
