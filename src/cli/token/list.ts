import type { TokenSummary } from '../../client/join-tokens.ts'
import { loadClient } from '../client.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'

const ownOptions = { output: outputOption }

export const tokenList: Command = {
  name: 'token list',
  description: 'List the tokens with which machines can join, without their secrets.',
  details: 'Those that have expired are removed by the cluster.',
  examples: [{ command: 'k8s token list -o json', description: 'The same for a program' }],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const { adminKubeconfig } = await pathsOf(invocation)
  const { listTokens } = await loadClient(invocation)
  const { joinGroups, joinRoles } = await import('../../cluster/join/token.ts')
  const roleOf = ({ groups }: TokenSummary) =>
    joinRoles.find((role) => groups.includes(joinGroups[role])) ?? 'other'
  const tokens = (await listTokens(adminKubeconfig)).map((token) => ({
    id: token.id,
    role: roleOf(token),
    expires: token.expires ?? null,
    description: token.description,
  }))
  if (output === 'json') {
    invocation.print(`${JSON.stringify({ tokens }, null, 2)}\n`)
    return 0
  }
  const rows = tokens.map(({ id, role, expires, description }) => [id, role, expires ?? 'never', description])
  const header = ['ID', 'ROLE', 'EXPIRES', 'DESCRIPTION']
  invocation.print(
    rows.length === 0
      ? 'There are no tokens.\n'
      : renderTable(
          header,
          rows.map((row) => row.map(printable)),
        ),
  )
  return 0
}

/** A description is what somebody has written, of any client. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ')
}
