import { loadClient } from '../client.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'
import type { EncryptionState } from './state.ts'

const ownOptions = { output: outputOption }

export const encryptionStatus: Command = {
  name: 'secrets-encryption status',
  description: 'Show with which keys the Secrets of the cluster are encrypted.',
  examples: [
    { command: 'k8s secrets-encryption status', description: 'Each key, and how many Secrets need it' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const paths = await pathsOf(invocation)
  const client = await loadClient(invocation)
  const { readState } = await import('./state.ts')
  const state = await readState(paths, client)
  invocation.print(output === 'json' ? `${JSON.stringify(state, undefined, 2)}\n` : render(state))
  return 0
}

function render({ keys, others, isLoaded }: EncryptionState): string {
  const rows = [
    ...keys.map(({ name, secrets }, index) => [
      name,
      index === 0 ? 'written and read with' : 'read with',
      secrets,
    ]),
    ...others.map(({ name, secrets }) => [
      name === '' ? 'none' : name,
      name === '' ? 'in the clear' : 'lost',
      secrets,
    ]),
  ].map((row) => row.map(String))
  const pending = [...keys.slice(1), ...others.filter(({ name }) => name === '')]
    .map(({ secrets }) => secrets)
    .reduce((sum, secrets) => sum + secrets, 0)
  const lines = [
    ...(isLoaded ? [] : ['The API server has not read this configuration yet.\n']),
    ...(pending === 0
      ? []
      : [`${pending} Secrets do not have the first key: k8s secrets-encryption rotate writes them anew.\n`]),
  ]
  return [renderTable(['KEY', 'USE', 'SECRETS'], rows), ...lines].join('')
}
