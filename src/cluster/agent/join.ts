import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { AppError } from '../../base/errors.ts'
import {
  preparePrivateDirectory,
  publicMode,
  readFileIfPresent,
  writeFileAtomically,
} from '../../base/files.ts'
import { joinedFiles } from '../../components/node-access.ts'
import type { AgentConfig } from '../../config/config.ts'
import { keepFacts, readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Paths } from '../../config/paths.ts'
import { usageError } from '../../config/table/setting.ts'
import type { Payload } from '../../payload/payload.ts'
import { discover, type Discovery } from '../join/discovery.ts'
import { givenToken, type NewcomerOptions, serversToAsk, untilFound, withoutToken } from '../newcomer.ts'
import { requireAgentVersion } from '../version.ts'
import { keepNodeCertificate, NodeCertificate } from './node-certificate.ts'

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
    // What an interrupted join has left.
    await rm(paths.joiningKey, { force: true })
    await requireAgentVersion(config, options)
    return config
  }
  const given = await givenToken(config, 'agent')
  if (given === undefined) {
    throw standing === 'expired'
      ? expired(config)
      : usageError(`cannot join a cluster: ${withoutToken('agent')}`)
  }
  const { servers: known = [], joinedAt = [] } = readNodeRecord(paths)
  const servers = serversToAsk(config.server, known, joinedAt)
  const { signal, payload } = options
  const { nodeName } = config
  const { gitVersion: version } = payload.version
  const certificate = new NodeCertificate({ ...given, nodeName, keyFile: paths.joiningKey, signal })
  const join = async (server: string) => {
    const found = await discover({ ...given, server, nodeName, version, signal })
    return { ...found, certificate: await certificate.askFor(server, found.tls) }
  }
  const found = await untilFound(servers, join, options)
  if (found === undefined) return undefined
  const joined = { ...config, ...found.cluster }
  await write(joined, { ...options, found, servers })
  return joined
}

/** What is on the disk of a cluster: nothing that is whole, a certificate that holds, or one that does not. */
async function standingOf(paths: Paths): Promise<'new' | 'joined' | 'expired'> {
  // The last of what is written.
  if (!existsSync(paths.clusterFacts)) return 'new'
  const pem = await readFileIfPresent(joinedFiles(paths).certificateFile)
  if (pem === undefined) return 'new'
  return hasExpired(pem) ? 'expired' : 'joined'
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
  options: JoinOptions & { found: Discovery & { certificate: string }; servers: readonly string[] },
): Promise<void> {
  const { paths, found, servers } = options
  const { serverCaFile, clientCaFile, certificateFile } = joinedFiles(paths)
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
  await keepNodeCertificate(found.certificate, certificateFile)
  keepFacts(config)
  await rm(paths.joiningKey, { force: true })
}
