import type { Command, Invocation } from '../command.ts'
import { optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { databaseOf } from './database.ts'

const ownOptions = { output: outputOption }

export const dbCheck: Command = {
  name: 'db check',
  description: 'Look for damage in the database.',
  details: `Reads every page, then holds all versions of all keys to the datastore's rules. Works while the daemon runs, too.
Changes nothing. Exits with 1 when something is wrong.`,
  examples: [{ command: 'k8s db check', description: 'Check the database of the server' }],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

const remedy = `Stop the daemon, keep state.db with its -wal for an examination, and restore a snapshot (k8s snapshot restore).
`

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const file = await databaseOf(invocation)
  const { checkDatabase } = await import('../../datastore/log/soundness.ts')
  const findings = checkDatabase(file)
  if (output === 'json') invocation.print(`${JSON.stringify({ path: file.path, findings }, null, 2)}\n`)
  else if (findings.length === 0) invocation.print(`${file.path} is sound.\n`)
  else
    invocation.print(`${file.path} is damaged:\n${findings.map((line) => `  ${line}\n`).join('')}${remedy}`)
  return findings.length === 0 ? 0 : 1
}
