import type { ApiAccess } from '../../api/client.ts'
import type { Logger } from '../../base/logger.ts'
import type { Config } from '../../config/config.ts'
import { readNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import type { Leadership } from '../leadership.ts'
import { LeaseElection } from '../lease-election.ts'
import { leaseStore } from '../lease-store.ts'

/** Whoever joins holds the Lease kube-system/k8s-joining-server until its member votes. */
export function joinQueue(
  { server = [], nodeName }: Config,
  { paths, admin, log }: { paths: Paths; admin: Pick<ApiAccess, 'identity'>; log: Logger },
): Leadership {
  const servers = [...new Set([...server, ...(readNodeRecord(paths).joinedAt ?? [])])]
  // The certificates of all servers have it.
  const identity = async () => ({ ...(await admin.identity()), checkedAs: '127.0.0.1' })
  return new LeaseElection({
    store: leaseStore({ lease: 'joining', servers: servers.map((one) => ({ server: one, identity })) }),
    name: nodeName,
    log: log.child({ task: 'joining' }),
    verb: 'joins',
    timing: { retryMs: 1_000 },
  })
}
