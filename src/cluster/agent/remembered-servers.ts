import { describeError } from '../../base/errors.ts'
import type { TlsIdentity } from '../../base/http.ts'
import type { Logger } from '../../base/logger.ts'
import { type KnownServers, Servers } from '../../balancer/servers.ts'
import type { AgentConfig } from '../../config/config.ts'
import { readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'

interface MemoryOptions {
  readonly paths: Paths
  readonly log: Logger
}

/** The servers that this machine knows of: what the cluster said last, and where it was told to look, now or when it joined. */
export function rememberedServers(
  { server }: Pick<AgentConfig, 'server'>,
  { paths, tls, log }: MemoryOptions & { tls: TlsIdentity },
): Servers {
  const { servers = [], formerServers = [], joinedAt = [] } = readNodeRecord(paths)
  if (server.length > 0 && server.join() !== joinedAt.join()) write({ joinedAt: server }, { paths, log })
  const fallback = server.length > 0 ? server : joinedAt
  return new Servers({ listed: servers, fallback, former: formerServers, tls, log })
}

/** For the next start. */
export function rememberServers(known: KnownServers, { paths, log }: MemoryOptions): void {
  const { servers = [], formerServers = [] } = readNodeRecord(paths)
  const isKnown =
    servers.join() === known.servers.join() && formerServers.join() === known.formerServers.join()
  if (!isKnown) write(known, { paths, log })
}

/** A full disk is no reason to stop here. */
function write(changes: Parameters<typeof updateNodeRecord>[1], { paths, log }: MemoryOptions): void {
  try {
    updateNodeRecord(paths, changes)
  } catch (error) {
    log.warn({ reason: describeError(error) }, 'cannot remember the servers of the cluster')
  }
}
