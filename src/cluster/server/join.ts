/*
 * How a server joins the cluster of others. "joining" is noted before anything else, and what says that all is there comes last:
 *
 *    nothing          found out whom it joins and whether it may: what is refused leaves nothing behind
 *    node.json        "joining", and where; from here on no start makes a new cluster of it
 *    its name         promised to this machine, in the cluster
 *    pki/             the keys of the cluster
 *    cluster.json     what is fixed in it: the token is not needed any more
 *    ...              its member is let into the etcd of the others (storage/enrolment.ts), its Node comes: the note goes
 */
import { join } from 'node:path'
import { Api } from '../../api/client.ts'
import { AppError } from '../../base/errors.ts'
import { preparePrivateDirectory, writeFileAtomically } from '../../base/files.ts'
import type { Config } from '../../config/config.ts'
import type { JoinedFacts } from '../../config/load.ts'
import { keepFacts, newNodeId, readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Paths } from '../../config/paths.ts'
import { usageError } from '../../config/table/setting.ts'
import type { Payload } from '../../payload/payload.ts'
import { bundleFiles } from '../../pki/bundle.ts'
import { refused } from '../join/discovery.ts'
import { networkBackendOf } from '../join/network-backend.ts'
import {
  discoverAsServer,
  type FoundCluster,
  promiseName,
  requireFreeName,
} from '../join/server-discovery.ts'
import { ownerInEtcd } from '../../storage/owner.ts'
import { type MemberAddresses, memberAddressesPath, readMemberAddresses } from '../member-addresses.ts'
import { givenToken, type NewcomerOptions, serversToAsk, untilFound, withoutToken } from '../newcomer.ts'

export interface ServerJoinOptions extends NewcomerOptions {
  readonly paths: Paths
  readonly payload: Pick<Payload, 'version'>
  /** The settings again, with what is fixed in the cluster that is joined. Rejects with USAGE. */
  readonly withFacts: (joined: JoinedFacts) => Promise<Config>
}

/** Gives this machine all that a server needs of its cluster. undefined when the signal ends the wait for one of the others. */
export async function joinAsServer(config: Config, options: ServerJoinOptions): Promise<Config | undefined> {
  const { paths, payload, signal } = options
  const { isJoining: isKnown = false, joinedAt = [], id: formerId } = readNodeRecord(paths)
  if (config.serverMode !== 'ha' || config.clusterInit) throw interrupted(paths, joinedAt)
  const servers = serversToAsk(config.server, joinedAt)
  const given = await givenToken(config, 'server')
  if (given === undefined) throw usageError(`cannot join a cluster: ${withoutToken('server')}`)
  const { token, caHash, key = '' } = given
  const id = formerId ?? newNodeId()
  const { gitVersion: version } = payload.version
  const look = async (server: string) => {
    const found = await discoverAsServer({ server, token, caHash, key, version, signal })
    const { cluster } = found.bundle
    const joined = await options.withFacts({ cluster: ofSeveral(cluster, server), server })
    const name = { nodeName: joined.nodeName, holder: `server-${id}`, isKnown, signal }
    await requireFreeName(found, name)
    await requireSameNetwork(joined, found, signal)
    const members = joined.clusterInit ? await memberAddresses(found, signal) : []
    if (!joined.clusterInit) await requireSameEtcd(joined, { server, caHash, signal })
    return { found, joined, name, members }
  }
  const all = await untilFound(servers, look, options)
  if (all === undefined) return undefined
  const { found, joined, name, members } = all
  updateNodeRecord(paths, {
    settings: { role: 'server', 'node-name': joined.nodeName },
    hostName: thisHost.nodeName(),
    ...{ id, joinedAt: servers, otherMembers: members, isJoining: true },
  })
  await promiseName(found, name)
  await writeKeys(found, paths)
  keepFacts(joined)
  return joined
}

function interrupted({ dataDir }: Paths, joinedAt: readonly string[]): AppError {
  return usageError(
    `cannot make a cluster in ${dataDir}: it has begun to join that of ${joinedAt.join(', ')}; start with the settings of then, or remove what is there with k8s reset`,
  )
}

function ofSeveral(cluster: Readonly<Record<string, string>>, server: string) {
  if (cluster['server-mode'] === 'ha') return cluster
  throw refused(
    server,
    'it is a cluster of one server (server-mode single)',
    'make it one of several first: k8s migrate --to=ha',
  )
}

async function requireSameNetwork(
  { networkBackend }: Config,
  found: FoundCluster,
  signal: AbortSignal,
): Promise<void> {
  using api = new Api({ ...found, signal })
  const theirs = await networkBackendOf(api)
  if (theirs === undefined || theirs === networkBackend) return
  throw refused(
    found.server,
    `the nodes of the cluster reach each other by network-backend ${theirs.slice(0, 50)}, and this one would by ${networkBackend}`,
    `all servers have the same: start with --network-backend=${theirs.slice(0, 50)}`,
  )
}

/** Of an etcd that others run: on another one this server would be a cluster of its own. */
async function requireSameEtcd(
  joined: Config,
  { server, caHash, signal }: { server: string; caHash: string; signal: AbortSignal },
): Promise<void> {
  const holder = await ownerInEtcd(joined, signal)
  if (holder === caHash) return
  const which = `the etcd at ${joined.etcdEndpoints?.join(', ')}`
  throw refused(
    server,
    `${which} has ${holder === undefined ? 'no cluster' : 'another cluster'} below ${joined.etcdPrefix}`,
    'all servers have the same: start with the --etcd-endpoints of that server',
  )
}

async function memberAddresses(found: FoundCluster, signal: AbortSignal): Promise<MemberAddresses> {
  using api = new Api({ ...found, signal })
  const members = readMemberAddresses(await api.get(memberAddressesPath))
  if (members.length > 0) return members
  throw new AppError(`${found.server} does not say yet where the members of etcd are`, {
    code: 'JOIN_ANSWER',
  })
}

/** Keys first, each for root alone. */
async function writeKeys({ bundle }: FoundCluster, { pkiDir }: Paths): Promise<void> {
  await preparePrivateDirectory(pkiDir)
  const hasMembers = bundle.cluster['cluster-init'] === 'true'
  for (const { name, mode } of bundleFiles(pkiDir, { hasMembers }))
    await writeFileAtomically(join(pkiDir, name), bundle.files[name] ?? '', { mode })
}
