import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { AppError } from '../../base/errors.ts'
import {
  preparePrivateDirectory,
  publicMode,
  readFileIfPresent,
  writeFileAtomically,
} from '../../base/files.ts'
import { balancerUrl } from '../../balancer/api-balancer.ts'
import { joinedFiles } from '../../components/node-access.ts'
import type { AgentConfig } from '../../config/config.ts'
import { keepFacts, readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Paths } from '../../config/paths.ts'
import { usageError } from '../../config/table/setting.ts'
import type { Payload } from '../../payload/payload.ts'
import { writeBootstrapKubeconfig } from '../../pki/kubeconfig.ts'
import { discover, type Discovery } from '../join/discovery.ts'
import { type BootstrapToken, formatBootstrapToken } from '../join/token.ts'
import { givenToken, type NewcomerOptions, serversToAsk, untilFound, withoutToken } from '../newcomer.ts'
import { requireAgentVersion } from '../version.ts'

export interface JoinOptions extends NewcomerOptions {
  readonly paths: Paths
  readonly payload: Pick<Payload, 'version'>
}

/**
 * Makes this machine know the cluster of its servers: from the disk, or with the token. A server that is away is waited
 * for; what cannot become right by itself is thrown, and nothing is written before all has been found right. undefined
 * when the signal ends the wait.
 */
export async function joinAsAgent(
  config: AgentConfig,
  options: JoinOptions,
): Promise<AgentConfig | undefined> {
  const { paths } = options
  const standing = await standingOf(paths)
  if (standing === 'joined') {
    await requireAgentVersion(config, options)
    return config
  }
  const given = await givenToken(config, 'agent')
  if (given === undefined) {
    if (standing === 'joining') return config
    throw standing === 'expired'
      ? expired(config)
      : usageError(`cannot join a cluster: ${withoutToken('agent')}`)
  }
  const { servers: known = [], joinedAt = [] } = readNodeRecord(paths)
  const servers = serversToAsk(config.server, known, joinedAt)
  const { signal, payload } = options
  const { nodeName } = config
  const { gitVersion: version } = payload.version
  const isKnown = standing === 'joining'
  const look = (server: string) => discover({ ...given, server, nodeName, isKnown, version, signal })
  const found = await untilFound(servers, look, options)
  if (found === undefined) return undefined
  const joined = { ...config, ...found.cluster }
  await write(joined, { ...options, found, token: given.token, servers })
  return joined
}

/** What is on the disk of a cluster: nothing, what its kubelet asks for a certificate with, a certificate that holds, or one that does not. */
async function standingOf(paths: Paths): Promise<'new' | 'joining' | 'joined' | 'expired'> {
  const { certificateFile, bootstrapKubeconfig } = joinedFiles(paths)
  // The last of what is written.
  if (!existsSync(paths.clusterFacts)) return 'new'
  const pem = await readFileIfPresent(certificateFile)
  if (pem !== undefined && !hasExpired(pem)) return 'joined'
  if (existsSync(bootstrapKubeconfig)) return 'joining'
  return pem === undefined ? 'new' : 'expired'
}

function hasExpired(pem: string): boolean {
  try {
    return new X509Certificate(pem).validToDate < new Date()
  } catch {
    return true
  }
}

function expired({ nodeName }: AgentConfig): AppError {
  return new AppError(
    `cannot run this node: its certificate has expired, by the clock of this machine (${new Date().toISOString()})`,
    {
      code: 'JOIN_CLOCK',
      remedy: `where the clock is right, remove the Node, on a server (k8s node remove ${nodeName}), and start it with a new token`,
    },
  )
}

/** In such an order that an interrupted one is found as what it is: "joining" first, and what says that all is there last. */
async function write(
  config: AgentConfig,
  options: JoinOptions & { found: Discovery; token: BootstrapToken; servers: readonly string[] },
): Promise<void> {
  const { paths, found, token, servers } = options
  const { serverCaFile, clientCaFile } = joinedFiles(paths)
  const { settings } = readNodeRecord(paths)
  updateNodeRecord(paths, {
    settings: { ...settings, role: 'agent', 'node-name': config.nodeName },
    hostName: thisHost.nodeName(),
    ...{ servers, joinedAt: config.server.length > 0 ? config.server : servers },
    isJoining: true,
  })
  await preparePrivateDirectory(paths.pkiDir)
  await writeFileAtomically(serverCaFile, found.serverCa, { mode: publicMode })
  await writeFileAtomically(clientCaFile, found.clientCas, { mode: publicMode })
  await writeBootstrapKubeconfig(
    { dir: paths.kubeconfigDir, server: balancerUrl, caFile: serverCaFile },
    formatBootstrapToken(token),
  )
  keepFacts(config)
}
