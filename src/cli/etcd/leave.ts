import { existsSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, describeError, errorCode } from '../../base/errors.ts'
import { readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import type { EtcdServer } from '../../datastore/datastore.ts'
import type { ListedMember, Member } from '../../datastore/member.ts'
import { type Command, type Invocation, requireRoot } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { answerLimitMs, ownMember } from './own-member.ts'

const action = 'leave the etcd of the servers'

export const etcdLeave: Command = {
  name: 'etcd leave',
  description: 'Take this server out of the etcd of the servers for good, and stop it.',
  details: `Its member is removed, which the last one refuses, and one without which the others would have no majority. What it had is
put aside, and this machine does not start as a server of that cluster any more. Called again it goes on with what was interrupted. Move its
pods away before: k8s node drain. Pods that are left run on until k8s reset.`,
  examples: [{ command: 'k8s etcd leave', description: 'On the server that goes' }],
  options: daemonOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  requireRoot(action)
  const paths = await pathsOf(invocation)
  const own = await ownMember(paths, action)
  const { settings: { 'node-name': name = '' } = {} } = readNodeRecord(paths)
  const hasLeft = readNodeRecord(paths).hasLeft === true
  await leave(paths, { own, name })
  const { connectControl } = await import('../../control/client.ts')
  await connectControl(paths.controlSocket)
    .stop({ pods: false })
    .catch((error: unknown) => {
      if (errorCode(error) !== 'DAEMON_NOT_RUNNING') throw error
    })
  const aside = await putAside(paths)
  invocation.print(
    `${name} has left the etcd of the servers${hasLeft && aside === undefined ? ' already' : ''}, and does not run any more.\n`,
  )
  if (aside !== undefined) invocation.print(`What its member had is in ${aside}.\n`)
  invocation.print(
    `Remove its Node on another server: k8s node remove ${name}; and what is here: k8s reset\n`,
  )
  return 0
}

interface Leaver {
  readonly own: EtcdServer
  readonly name: string
}

/** Noted first: from then on no start brings it back, whatever of it was removed. */
async function leave(paths: Paths, { own, name }: Leaver): Promise<void> {
  const { Member: MemberOf } = await import('../../datastore/member.ts')
  // One that is taken out by itself ends before it has answered.
  const servers = [...(readNodeRecord(paths).otherMembers ?? []), own.address]
  const { hasLeft = false } = readNodeRecord(paths)
  let reason: unknown
  for (const address of servers) {
    using member = new MemberOf({ ...own, address })
    let listed: ListedMember[]
    try {
      listed = await member.members(AbortSignal.timeout(answerLimitMs))
    } catch (error) {
      reason = error
      continue
    }
    const mine = listed.find((one) => one.name === name)
    if (mine === undefined) {
      if (hasLeft) return
      throw refusal(`there is none of the name ${name}`, 'see k8s etcd members on another server')
    }
    await requireMajority(listed, { mine, own, MemberOf })
    updateNodeRecord(paths, { hasLeft: true })
    try {
      await member.remove(mine.id, AbortSignal.timeout(answerLimitMs))
      return
    } catch (error) {
      const now = await member.members(AbortSignal.timeout(answerLimitMs)).catch(() => undefined)
      if (now !== undefined && !now.some(({ id }) => id === mine.id)) return
      if (now !== undefined) updateNodeRecord(paths, { hasLeft })
      throw refusal(
        describeError(error),
        'see k8s etcd members; k8s etcd leave goes on where it was interrupted',
      )
    }
  }
  throw refusal(
    `none of ${servers.join(', ')} answers: ${describeError(reason)}`,
    'without a majority no member can leave: bring the others back',
  )
}

/** etcd looks at it, too, and says less. */
async function requireMajority(
  listed: readonly ListedMember[],
  { mine, own, MemberOf }: { mine: ListedMember; own: EtcdServer; MemberOf: typeof Member },
): Promise<void> {
  const others = listed.filter(({ id, isLearner }) => id !== mine.id && !isLearner)
  if (mine.isLearner) return
  if (others.length === 0)
    throw refusal(
      'it is the last member, with which the cluster would end',
      'to end it, k8s stop --pods and k8s reset',
    )
  const answers = await Promise.all(
    others.map(async ({ name, clientUrls: [address = ''] }) => {
      try {
        using member = new MemberOf({ ...own, address })
        const { leader } = await member.status(AbortSignal.timeout(answerLimitMs))
        return leader === 0n ? name : undefined
      } catch {
        return name
      }
    }),
  )
  const silent = answers.filter((name) => name !== undefined)
  const needed = Math.floor(others.length / 2) + 1
  if (others.length - silent.length >= needed) return
  throw refusal(
    `the others would have no majority: ${silent.join(', ')} ${silent.length === 1 ? 'does' : 'do'} not answer, and of ${others.length} it takes ${needed}`,
    'bring them back first, or remove their Nodes, where they are gone for good',
  )
}

/** undefined: there was nothing. */
async function putAside({ memberDir }: Paths): Promise<string | undefined> {
  const data = join(memberDir, 'member')
  if (!existsSync(data)) return undefined
  const aside = join(memberDir, `left-${new Date().toISOString().replaceAll(':', '-')}`)
  await rename(data, aside)
  return aside
}

function refusal(reason: string, remedy: string): AppError {
  return new AppError(`cannot ${action}: ${reason}`, { code: 'ETCD_LEAVE', remedy })
}
