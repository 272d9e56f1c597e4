import type { ListedMember, MemberStatus } from '../../datastore/member.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'
import { answerLimitMs, ownMember } from './own-member.ts'

const ownOptions = { output: outputOption }

export const etcdMembers: Command = {
  name: 'etcd members',
  description: 'List the members of the etcd of the servers.',
  details: `Asks this server's own member, which needs a majority of them to answer. A learner is one that has been added and does not
vote yet; one without a name has never started.`,
  examples: [{ command: 'k8s etcd members -o json', description: 'For a program' }],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const server = await ownMember(await pathsOf(invocation), 'list the members of etcd')
  const { Member } = await import('../../datastore/member.ts')
  using member = new Member(server)
  const members = await member.members(AbortSignal.timeout(answerLimitMs))
  const own = await member.status(AbortSignal.timeout(answerLimitMs))
  invocation.print(output === 'json' ? renderJson(members, own) : render(members, own))
  return 0
}

function render(members: readonly ListedMember[], own: MemberStatus): string {
  const rows = members.map((member) => [
    idOf(member),
    member.name || '-',
    roleOf(member, own),
    member.peerUrls.join(','),
    member.id === own.id ? `${(own.bytes / 2 ** 20).toFixed(1)}Mi` : '-',
    member.id === own.id ? `${(own.bytesInUse / 2 ** 20).toFixed(1)}Mi` : '-',
  ])
  const complaints = own.errors.map((error) => `etcd says: ${error}\n`)
  return [renderTable(['ID', 'NAME', 'ROLE', 'PEERS', 'SIZE', 'IN USE'], rows), ...complaints].join('')
}

function renderJson(members: readonly ListedMember[], own: MemberStatus): string {
  const plain = members.map((member) => ({
    ...{ id: idOf(member), name: member.name, role: roleOf(member, own), isThisServer: member.id === own.id },
    ...{ peerUrls: member.peerUrls, clientUrls: member.clientUrls },
  }))
  const { version, bytes, bytesInUse, quotaBytes, errors } = own
  return `${JSON.stringify({ members: plain, version, bytes, bytesInUse, quotaBytes, errors }, null, 2)}\n`
}

/** As etcdctl shows it. */
function idOf({ id }: ListedMember): string {
  return id.toString(16)
}

function roleOf({ id, name, isLearner }: ListedMember, { leader }: MemberStatus): string {
  if (id === leader) return 'leader'
  return name === '' ? 'not started' : isLearner ? 'learner' : 'follower'
}
