import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { AppError, describeError } from '../base/errors.ts'
import { etcdPeerUrl } from '../components/etcd.ts'
import { readNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { type StoredMember, readMembers } from '../datastore/etcd-file/etcd-file.ts'
import { idsOfMember } from '../datastore/etcd-wal.ts'
import type { Payload } from '../payload/payload.ts'
import { runCommand } from '../supervisor/spawn.ts'

const restoreTimeoutMs = 3_600_000
/** etcd makes its log so large before it writes any of it, and then the next one. */
export const logBytes = 2 * 64 * 1024 * 1024

/** Who this server's member is. */
export interface MemberIdentity {
  readonly name: string
  readonly peerUrl: string
}

/** As this server was when it ran last; a member that starts tells the others when that has changed. */
export function memberIdentity(paths: Pick<Paths, 'nodeRecord'>, action: string): MemberIdentity {
  const { settings = {}, address } = readNodeRecord(paths)
  if (address === undefined) {
    throw new AppError(`cannot ${action}: the address of this server is not known`, {
      code: 'MEMBER_ADDRESS',
      path: paths.nodeRecord,
      remedy: 'start k8s once, until it is ready, and stop it again',
    })
  }
  return { name: settings['node-name'] ?? hostname(), peerUrl: etcdPeerUrl(address) }
}

/** Whom the data of this server know as members, as they were written down last, and which of them it is. */
export async function knownMembers(
  { memberDir }: Pick<Paths, 'memberDir'>,
  payload: Pick<Payload, 'bin'>,
): Promise<{ own: StoredMember | undefined; others: readonly StoredMember[] }> {
  const ids = idsOfMember(memberDir)
  // Without it, an etcd would take its database for that of a new cluster, and what is in the log alone would be lost.
  if (ids === undefined)
    throw unusableData(`there is no log in ${join(memberDir, 'member', 'wal')}, or it is damaged`)
  const path = join(memberDir, 'member', 'snap', 'db')
  const members = await readMembers({ program: payload.bin('etcd-file'), path }).catch((error: unknown) => {
    throw unusableData(describeError(error))
  })
  const { memberId } = ids
  return {
    own: members.find(({ id }) => id === memberId),
    others: members.filter(({ id }) => id !== memberId),
  }
}

export function unusableData(reason: string): AppError {
  return new AppError(`cannot read the data of etcd: ${reason}`, {
    code: 'ETCD_DATA',
    remedy: 'where they are damaged, go on from a snapshot: k8s cluster reset --from-snapshot FILE',
  })
}

/**
 * Makes the data of the only member of a new etcd from a snapshot file of another. Its cluster has an id of its own, so that no
 * member of the other takes it for one of its own.
 */
export async function makeMemberData(given: {
  readonly payload: Pick<Payload, 'bin'>
  readonly member: MemberIdentity
  readonly snapshot: string
  readonly dir: string
  /** How far the revision goes on beyond that of the snapshot; all before counts as compacted then. */
  readonly revisionBump?: number
}): Promise<void> {
  const { payload, member, snapshot, dir, revisionBump = 0 } = given
  await runCommand({
    command: payload.bin('etcd-restore'),
    args: [
      ...[`--snapshot=${snapshot}`, `--data-dir=${dir}`, `--name=${member.name}`],
      ...[`--peer-url=${member.peerUrl}`, `--token=k8s-${randomBytes(16).toString('hex')}`],
      `--bump-revision=${revisionBump}`,
    ],
    env: { GOTRACEBACK: 'none' },
    timeoutMs: restoreTimeoutMs,
  }).catch((cause: unknown) => {
    throw new AppError(
      `cannot make the data of etcd in ${dir}`,
      { code: 'MEMBER_DATA', path: dir, remedy: 'look at the disk, and at the space that is free on it' },
      { cause },
    )
  })
}
