import type { Command, Invocation } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { answerLimitMs, ownMember } from './own-member.ts'

/** It answers nobody meanwhile. */
const defragmentLimitMs = 600_000

export const etcdDefrag: Command = {
  name: 'etcd defrag',
  description: "Give free space of this server's member of etcd back to the disk.",
  details: `The daemon does so by itself when half of the file is free. Until it is done this member answers nobody: about a
second for each 100 MB. On a cluster of several servers, do one after the other.`,
  examples: [{ command: 'k8s etcd defrag', description: 'After many objects were deleted' }],
  options: daemonOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const server = await ownMember(await pathsOf(invocation), 'defragment')
  const { Member } = await import('../../datastore/member.ts')
  using member = new Member(server)
  const before = await member.status(AbortSignal.timeout(answerLimitMs))
  await member.defragment(AbortSignal.timeout(defragmentLimitMs))
  const after = await member.status(AbortSignal.timeout(answerLimitMs))
  const [from, to] = [before, after].map(({ bytes }) => `${(bytes / 2 ** 20).toFixed(1)} MiB`)
  invocation.print(`The database of etcd had ${from}, and has ${to}.\n`)
  return 0
}
