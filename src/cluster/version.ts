import { type ApiAccess, openApi } from '../api/client.ts'
import { AppError, describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { joinedIdentity } from '../components/node-access.ts'
import type { AgentConfig, Config } from '../config/config.ts'
import { readNodeRecord, updateNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { pkiFiles, readIdentity } from '../pki/pki.ts'
import { refusalOfServerSkew, refusalOfSkew } from './join/skew.ts'

/** Pods do not wait for servers that are away. */
const answerLimitMs = 2000
/** Certificates of servers have it. */
const checkedAs = '127.0.0.1'

interface VersionOptions {
  readonly paths: Paths
  readonly payload: Pick<Payload, 'version'>
  readonly log: Pick<Logger, 'warn'>
  readonly signal: AbortSignal
}

/**
 * Of an agent: throws NODE_SKEW where it does not go with the servers. Asks them only when its version is another than they were last seen
 * to go with.
 */
export async function requireAgentVersion(config: AgentConfig, options: VersionOptions): Promise<void> {
  const { paths, payload, log } = options
  const { gitVersion } = payload.version
  const { version, servers = [], joinedAt = [] } = readNodeRecord(paths)
  if (version === gitVersion) return
  const haveAnswered = await requireVersion(options, {
    servers: [...config.server, ...servers, ...joinedAt],
    identity: () => joinedIdentity(paths),
    refusal: (server) => refusalOfSkew({ kubelet: gitVersion, server }),
  })
  if (!haveAnswered) return
  try {
    updateNodeRecord(paths, { version: gitVersion })
  } catch (error) {
    // They are asked again then.
    log.warn({ reason: describeError(error) }, 'cannot remember the version of this node')
  }
}

/** Of one of several servers: throws NODE_SKEW where it does not go with the others. They may have become others since its last start. */
export async function requireServerVersion(config: Config, options: VersionOptions): Promise<void> {
  const { paths, payload } = options
  const { otherMembers = [] } = readNodeRecord(paths)
  await requireVersion(options, {
    // Where another server's member of etcd is, there is its API server.
    servers: otherMembers.map((url) => `https://${new URL(url).hostname}:${config.httpsListenPort}`),
    identity: () => readIdentity(pkiFiles(paths.pkiDir), 'admin-client'),
    refusal: (server) => refusalOfServerSkew({ own: payload.version.gitVersion, server }),
  })
}

/** Whether all of the servers have answered. */
async function requireVersion(
  { paths, signal }: VersionOptions,
  {
    servers,
    identity,
    refusal,
  }: {
    servers: readonly string[]
    identity: () => Promise<TlsIdentity>
    refusal: (server: string) => { reason: string; remedy: string } | undefined
  },
): Promise<boolean> {
  const versions = await Promise.all(
    [...new Set(servers)].map(async (server) => {
      try {
        return await versionOf(
          { server, identity: async () => ({ ...(await identity()), checkedAs }) },
          signal,
        )
      } catch {
        return undefined
      }
    }),
  )
  for (const version of versions) {
    const skew = version === undefined ? undefined : refusal(version)
    if (skew === undefined) continue
    throw new AppError(`cannot run this node: ${skew.reason}`, {
      code: 'NODE_SKEW',
      remedy: `${skew.remedy}; the artifact before is kept in ${paths.dataDir}/data (docs/upgrade.md)`,
    })
  }
  return !versions.includes(undefined)
}

/** undefined: it does not say. */
async function versionOf(access: ApiAccess, signal: AbortSignal): Promise<string | undefined> {
  using api = await openApi(access, signal, answerLimitMs)
  const about = await api.get<{ readonly gitVersion?: unknown }>('/version')
  return typeof about?.gitVersion === 'string' ? about.gitVersion : undefined
}
