import type { AppError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Config } from '../../config/config.ts'
import { readNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { pkiFiles } from '../../pki/pki.ts'
import type { Leadership } from '../leadership.ts'
import { LeaseElection } from '../lease-election.ts'
import { leaseStore } from '../lease-store.ts'

/** Whoever joins holds the Lease kube-system/k8s-joining-server until its member votes. */
export function joinQueue(
  { server = [], nodeName }: Config,
  given: { paths: Paths; credentials: Promise<AppError | undefined>; log: Logger },
): Leadership {
  const { paths, credentials, log } = given
  const servers = [...new Set([...server, ...(readNodeRecord(paths).joinedAt ?? [])])]
  return new LeaseElection({
    store: leaseStore({ lease: 'joining', servers, pki: pkiFiles(paths.pkiDir), credentials }),
    name: nodeName,
    log: log.child({ task: 'joining' }),
    verb: 'joins',
    timing: { retryMs: 1_000 },
  })
}
