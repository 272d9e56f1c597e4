import { mkdir } from 'node:fs/promises'
import { AppError, describeError } from '../base/errors.ts'
import { privateDirectoryMode, privateMode, writeFileAtomically } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import type { Config } from '../config/config.ts'
import { changedNodeRecord, readNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { holdDataDirectory, Replacement } from '../snapshot/replacement.ts'
import { keysDigest, successorOf, type Successor } from '../storage/succession.ts'

interface Options {
  readonly paths: Paths
  readonly payload: Payload
  readonly log: Logger
  readonly signal: AbortSignal
}

/**
 * Where the cluster goes on without this server (k8s cluster reset on another one), its data of etcd are of the past: they are put aside
 * before its member could find others of then, and it joins again. Throws CLUSTER_HAS_OTHER_KEYS where its keys are of the past, too.
 */
export async function leavePastBehind(config: Config, options: Options): Promise<void> {
  const { paths, payload, log, signal } = options
  const { otherMembers: endpoints = [], joinedAt = [] } = readNodeRecord(paths)
  const { etcdPrefix: prefix = '' } = config
  const successor = await successorOf(paths, { endpoints, prefix, signal }).catch((error: unknown) => {
    log.warn({ reason: describeError(error) }, 'cannot ask other servers whether the cluster was reset')
    return undefined
  })
  if (successor === undefined) return
  if (successor.isContested) {
    log.error({ successor: successor.endpoint }, contestedWords)
    return
  }
  if (successor.keys !== (await keysDigest(paths.pkiDir))) throw otherKeys(successor, paths)
  using _held = await holdDataDirectory(paths, payload.sqliteAddon)
  await using replacement = await Replacement.prepare(paths, 'reset')
  // Without data, and joining: as a server that has just been given its keys.
  await mkdir(replacement.memberDir, { mode: privateDirectoryMode })
  const api = `https://${new URL(successor.endpoint).host.replace(/:\d+$/, '')}:${config.httpsListenPort}`
  const record = changedNodeRecord(paths, {
    ...{ isJoining: true, otherMembers: [successor.endpoint] },
    joinedAt: [...new Set([...joinedAt, api])],
  })
  await writeFileAtomically(replacement.nodeRecord, record, { mode: privateMode })
  const replaced = await replacement.carryOut()
  log.warn(
    { successor: successor.endpoint, replaced },
    'the cluster was reset on another server: what this one had in its etcd is put aside, and it joins again',
  )
}

const contestedWords =
  'the cluster was reset on another server, but a majority of its members serves: this one stays with them'

function otherKeys({ endpoint }: Successor, { dataDir }: Paths): AppError {
  return new AppError(
    `cannot start: the cluster of ${dataDir} was reset on another server (${endpoint}) to a snapshot that has other keys`,
    {
      code: 'CLUSTER_HAS_OTHER_KEYS',
      endpoint,
      remedy:
        'join again with a token of there: k8s stop --pods, k8s reset (keep a copy of what you need), then as a new server with k8s token create --role=server',
    },
  )
}
