import { readFile } from 'node:fs/promises'
import { AppError, describeError } from '../../base/errors.ts'
import { request, type TlsIdentity } from '../../base/http.ts'
import type { Logger } from '../../base/logger.ts'
import { joinedFiles } from '../../components/node-access.ts'
import type { AgentConfig } from '../../config/config.ts'
import { readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import type { Payload } from '../../payload/payload.ts'
import { refusalOfSkew } from '../join/skew.ts'

/** Pods do not wait for servers that are away. */
const answerLimitMs = 2000

/**
 * Of a machine that has joined, whose version is another than the servers were last seen to go with: throws NODE_SKEW where one of those
 * that answer does not. A start without an upgrade asks nobody.
 */
export async function requireVersion(
  config: AgentConfig,
  {
    paths,
    payload,
    log,
    signal,
  }: { paths: Paths; payload: Pick<Payload, 'version'>; log: Pick<Logger, 'warn'>; signal: AbortSignal },
): Promise<void> {
  const { gitVersion } = payload.version
  const { version, servers = [], joinedAt = [] } = readNodeRecord(paths)
  if (version === gitVersion) return
  const { serverCaFile, certificateFile } = joinedFiles(paths)
  const [ca, pair] = await Promise.all([serverCaFile, certificateFile].map((path) => readFile(path, 'utf8')))
  const tls = { ca, cert: pair, key: pair, checkedAs: '127.0.0.1' }
  const all = [...new Set([...config.server, ...servers, ...joinedAt])]
  const versions = await Promise.all(all.map((server) => versionOf(server, tls, signal)))
  for (const server of versions) {
    const skew = server === undefined ? undefined : refusalOfSkew({ kubelet: gitVersion, server })
    if (skew === undefined) continue
    throw new AppError(`cannot run this node: ${skew.reason}`, {
      code: 'NODE_SKEW',
      remedy: `${skew.remedy}; the artifact before is kept in ${paths.dataDir}/data (docs/upgrade.md)`,
    })
  }
  if (versions.includes(undefined)) return
  try {
    updateNodeRecord(paths, { version: gitVersion })
  } catch (error) {
    // It is asked again then.
    log.warn({ reason: describeError(error) }, 'cannot remember the version of this node')
  }
}

/** undefined: it does not say. */
async function versionOf(server: string, tls: TlsIdentity, signal: AbortSignal): Promise<string | undefined> {
  try {
    const { status, body } = await request({
      ...{ url: `${server}/version`, tls, signal, timeoutMs: answerLimitMs },
    })
    const { gitVersion } = JSON.parse(body) as { gitVersion?: unknown }
    return status === 200 && typeof gitVersion === 'string' ? gitVersion : undefined
  } catch {
    return undefined
  }
}
