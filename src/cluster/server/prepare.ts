import { AppError, assert } from '../../base/errors.ts'
import { serverAccess } from '../../components/node-access.ts'
import type { Config } from '../../config/config.ts'
import { readNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { roleOf } from '../../config/roles.ts'
import { chooseForNode } from '../../node/facts/choices.ts'
import { detectHost } from '../../node/facts/host.ts'
import { pkiFiles } from '../../pki/pki.ts'
import { refuseLostKeys } from '../../snapshot/lost-keys.ts'
import { prepareDirectories } from '../directories.ts'
import { planRole, roleRow } from '../plan.ts'
import { isNewcomer } from '../prepare.ts'
import { type Prepared, type PrepareOptions, settleNode, underWay } from '../prepare-node.ts'
import type { joinQueue } from './queue.ts'

/**
 * What differs with the kind of server is in its row (plan.ts). undefined when the signal ends the wait for what is not there.
 */
export async function prepareServer(given: Config, options: PrepareOptions): Promise<Prepared | undefined> {
  const { paths, payload, environment, log } = options
  refuseWhoHasLeft(paths)
  await leavePast(given, options)
  refuseLostKeys(paths, payload.sqliteAddon)
  const host = detectHost()
  const config = await joinedConfig(given, options)
  if (config === undefined) return undefined
  await requireOthersVersion(config, options)
  const node = await settleNode(config, options)
  if (node === undefined) return undefined
  const { addresses, moveNode } = node
  const row = roleRow(roleOf(config))
  const credentials = underWay(row.issueCredentials({ config, addresses, paths, log }))
  const access = serverAccess(config, paths, credentials)
  const plan = planRole(row, {
    ...{ config, addresses, paths, payload, host, credentials, environment, log },
    access,
    pki: pkiFiles(paths.pkiDir),
    podCidr: row.podCidr(config, paths),
    choices: chooseForNode(config, host),
    joining: readNodeRecord(paths).isJoining ? await joining(config, { paths, log, ...access }) : undefined,
  })
  return { plan, moveNode }
}

function refuseWhoHasLeft(paths: Paths): void {
  if (readNodeRecord(paths).hasLeft !== true) return
  throw new AppError(`cannot start: this server has left the cluster of ${paths.dataDir} (k8s etcd leave)`, {
    code: 'USAGE',
    remedy: 'end its pods with k8s stop --pods, remove what is left with k8s reset, and join again',
  })
}

/** Of a server whose cluster is that of others it is found out first which that is. undefined when the signal ends the wait. */
async function joinedConfig(given: Config, options: PrepareOptions): Promise<Config | undefined> {
  const { paths } = options
  if (!isNewcomer(given, paths)) return given
  const { withFacts } = options
  assert(withFacts !== undefined, 'a server can read its settings again')
  // No server that creates its cluster pays for it.
  const { joinAsServer } = await import('./join.ts')
  const config = await joinAsServer(given, { ...options, withFacts })
  if (config !== undefined) await prepareDirectories(paths, options.log)
  return config
}

/** Of one of several servers; who joins has looked at it already. */
async function requireOthersVersion(config: Config, options: PrepareOptions): Promise<void> {
  const { otherMembers = [], isJoining = false } = readNodeRecord(options.paths)
  if (otherMembers.length === 0 || isJoining) return
  const { requireServerVersion } = await import('../version.ts')
  await requireServerVersion(config, options)
}

/** How its member comes in: one server after the other, as long as the note "joining" is there. */
async function joining(config: Config, given: Parameters<typeof joinQueue>[1]) {
  const { joinQueue } = await import('./queue.ts')
  return { queue: joinQueue(config, given) }
}

/** What a member had must not meet others that had the same, when the cluster has gone on without them. */
async function leavePast(config: Config, options: PrepareOptions): Promise<void> {
  if (!config.clusterInit || (readNodeRecord(options.paths).otherMembers ?? []).length === 0) return
  // Nobody pays for it who has no other servers.
  const { leavePastBehind } = await import('../server-was-reset.ts')
  await leavePastBehind(config, options)
}
