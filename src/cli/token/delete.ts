import { usageError } from '../../config/table/setting.ts'
import { loadClient } from '../client.ts'
import type { Command, Invocation } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'

export const tokenDelete: Command = {
  name: 'token delete',
  description: 'Take a token back, so that no machine can join with it any more.',
  details: 'Machines that have joined with it stay: k8s node remove NAME removes one.',
  examples: [{ command: 'k8s token delete abcdef', description: 'By its ID, as "k8s token list" shows it' }],
  operands: [{ placeholder: 'ID', description: 'its ID, six characters' }],
  options: daemonOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const id = await idOf(invocation.operands[0] ?? '')
  const { adminKubeconfig } = await pathsOf(invocation)
  const { deleteToken } = await loadClient(invocation)
  await deleteToken(adminKubeconfig, id)
  invocation.print(`deleted ${id}\n`)
  return 0
}

/** Whoever has the whole token may give it, as to kubeadm; an error shows nothing of it. */
async function idOf(given: string): Promise<string> {
  const { isTokenId, parseBootstrapToken, parseToken } = await import('../../cluster/join/token.ts')
  if (isTokenId(given)) return given
  for (const parse of [parseBootstrapToken, parseToken]) {
    try {
      return parse(given).id
    } catch {
      // Not of this form.
    }
  }
  throw usageError('cannot use that ID: allowed are six characters of a to z and 0 to 9, and whole tokens')
}
