import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError, errorCode } from '../../base/errors.ts'
import {
  preparePrivateDirectory,
  publicMode,
  readFileIfPresent,
  writeFileAtomically,
} from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import type { Notifier } from '../../base/notify.ts'
import { balancerUrl } from '../../balancer/api-balancer.ts'
import { joinedFiles } from '../../components/node-access.ts'
import type { AgentConfig } from '../../config/config.ts'
import { keepFacts, readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Paths } from '../../config/paths.ts'
import { usageError } from '../../config/table/setting.ts'
import type { Payload } from '../../payload/payload.ts'
import { writeBootstrapKubeconfig } from '../../pki/kubeconfig.ts'
import type { Board } from '../condition.ts'
import { startExtensionMs } from '../daemon.ts'
import { feedWatchdog } from '../watchdog.ts'
import { discover, type Discovery } from '../join/discovery.ts'
import {
  type BootstrapToken,
  formatBootstrapToken,
  parseBootstrapToken,
  parseCaHash,
  parseToken,
} from '../join/token.ts'
import { requireVersion } from './version.ts'

/** Between two tries of the servers, one after the other. */
const retryMs = 2_000
/** What somebody has just made on a server may be unknown there for so long. */
const unknownTokenMs = 30_000
/** A token has less than 100 bytes. */
const tokenFileLimitBytes = 4096
const partName = 'joining'

export interface JoinOptions {
  readonly paths: Paths
  readonly payload: Pick<Payload, 'version'>
  readonly log: Logger
  readonly notify: Notifier
  readonly board: Pick<Board, 'report' | 'forget'>
  /** Ends the wait for a server. */
  readonly signal: AbortSignal
  readonly retryMs?: number
  readonly unknownTokenMs?: number
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
    await requireVersion(config, options)
    return config
  }
  const given = await givenToken(config)
  if (given === undefined) {
    if (standing === 'joining') return config
    throw standing === 'expired' ? expired(config) : usageError(`cannot join a cluster: ${withoutToken}`)
  }
  const { servers: known = [], joinedAt = [] } = readNodeRecord(paths)
  const servers = [...new Set([...config.server, ...known, ...joinedAt])]
  if (servers.length === 0)
    throw usageError('cannot join a cluster without a server of it: name one with --server=https://HOST:6443')
  const found = await untilFound(config, { ...options, ...given, servers, isKnown: standing === 'joining' })
  if (found === undefined) return undefined
  const joined = { ...config, ...found.cluster }
  await write(joined, { ...options, found, token: given.token, servers })
  return joined
}

const withoutToken =
  'it needs a token, which "k8s token create --role=agent" prints on a server: give it with --token-file or K8S_TOKEN'

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

interface Given {
  readonly token: BootstrapToken
  readonly caHash: string
}

/** What the settings say to join with. */
async function givenToken({ token, tokenFile, caHash }: AgentConfig): Promise<Given | undefined> {
  const text = token ?? (tokenFile === undefined ? undefined : await readToken(tokenFile))
  if (text === undefined) return undefined
  const hash = caHash === undefined ? undefined : parseCaHash(caHash)
  // ID.SECRET, as kubeadm has it.
  if (hash !== undefined && text.trim().length === 23)
    return { token: parseBootstrapToken(text), caHash: hash }
  const { role, caHash: own, ...bootstrap } = parseToken(text)
  if (role !== 'agent')
    throw usageError(
      'cannot join with this token: it is one for a server, which an agent must not have; make one with k8s token create --role=agent',
    )
  if (hash !== undefined && hash !== own)
    throw usageError(`cannot use --ca-hash=sha256:${hash}: the token is for sha256:${own}; leave it away`)
  return { token: bootstrap, caHash: own }
}

/** A file that has gone since this machine has joined is not missed. */
async function readToken(path: string): Promise<string> {
  try {
    const text = await readFile(path, 'utf8')
    return text.slice(0, tokenFileLimitBytes)
  } catch (cause) {
    throw new AppError(
      `cannot read the token in ${path}`,
      { code: 'JOIN_TOKEN', remedy: withoutToken },
      { cause },
    )
  }
}

interface SearchOptions extends JoinOptions, Given {
  readonly servers: readonly string[]
  readonly isKnown: boolean
}

async function untilFound(config: AgentConfig, options: SearchOptions): Promise<Discovery | undefined> {
  const { servers, payload, log, notify, board, signal } = options
  const { nodeName } = config
  const { gitVersion: version } = payload.version
  const begunMs = performance.now()
  let told = ''
  let isToldReady = false
  using waiting = new DisposableStack()
  while (!signal.aborted) {
    const reasons: string[] = []
    let isRefusedSoon = false
    for (const server of servers) {
      try {
        const found = await discover({ ...options, server, nodeName, version })
        board.forget(partName)
        log.info({ server }, 'found the cluster')
        return found
      } catch (error) {
        if (signal.aborted) return undefined
        if (isFinal(error, performance.now() - begunMs < (options.unknownTokenMs ?? unknownTokenMs)))
          throw error
        reasons.push(`${server}: ${shortReason(error)}`)
        isRefusedSoon ||= errorCode(error) === 'JOIN_TOKEN_UNKNOWN'
      }
    }
    const reason = reasons.join('; ')
    board.report({ name: partName, state: 'degraded', message: `waiting for a server: ${reason}` })
    if (reason !== told) {
      log.warn({ reason }, 'waiting for a server of the cluster; it is tried again')
      notify.extendTimeout(startExtensionMs)
      notify.status(`waiting for a server: ${reason}`)
    }
    // Nobody who starts a machine waits for another one; from then on the watchdog wants to be fed.
    if (!isRefusedSoon && !isToldReady) {
      isToldReady = true
      notify.ready()
      waiting.use(feedWatchdog({ notify, storage: { ping: async () => {} }, log }))
    }
    told = reason
    await sleep(options.retryMs ?? retryMs, undefined, { signal, ref: false }).catch(() => {})
  }
  return undefined
}

function isFinal(error: unknown, isEarly: boolean): boolean {
  const code = errorCode(error) ?? ''
  return ['JOIN_REFUSED', 'JOIN_CLOCK'].includes(code) || (code === 'JOIN_TOKEN_UNKNOWN' && !isEarly)
}

function shortReason(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? shortReason(error.cause) : describeError(error)
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
