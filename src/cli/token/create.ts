import { AppError } from '../../base/errors.ts'
import { readFacts, storageIn } from '../../config/facts.ts'
import type { Paths } from '../../config/paths.ts'
import { boolean, choice, duration, line } from '../../config/table/kinds.ts'
import { usageError } from '../../config/table/setting.ts'
import { loadClient } from '../client.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { outputOption } from '../output.ts'

const shortestTtlMs = 60_000

const ownOptions = {
  role: {
    group: 'Token',
    description: 'What who has the token can make of a machine.',
    kind: choice('agent', 'server'),
    default: 'agent' as const,
  },
  ttl: {
    group: 'Token',
    description: 'How long machines can join with it; 0s for always.',
    kind: duration,
    default: 86_400_000,
    defaultText: '24h',
  },
  description: {
    group: 'Token',
    description: 'What it is for, as "k8s token list" shows it.',
    kind: line,
  },
  'print-join-command': {
    group: 'Output',
    description: 'Print the whole command for the machine that joins.',
    kind: boolean,
    default: false,
  },
  output: outputOption,
}

export const tokenCreate: Command = {
  name: 'token create',
  description: 'Make a token with which machines join the cluster.',
  details: `The token names the cluster by the hash of its authority, so that a machine that joins knows it when it sees it.
Machines that have joined need it no more. A token for servers opens the keys of the cluster: who has it has the cluster. As long as there is a token, everybody who reaches the API server can read
kube-public/cluster-info: the address and the authorities of the cluster.`,
  examples: [
    { command: 'k8s token create', description: 'For agents, for a day' },
    { command: 'k8s token create --role=server --ttl=1h', description: 'For further servers, for an hour' },
    {
      command: 'k8s token create --ttl=1h --description=rack-7 --print-join-command',
      description: 'The command to run on them',
    },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { role, ttl, description, printJoinCommand, output } = optionValues(ownOptions, invocation.flags)
  if (ttl > 0 && ttl < shortestTtlMs)
    throw usageError('cannot use --ttl: allowed are 1m and more, and 0s for a token that does not end')
  const paths = await pathsOf(invocation)
  const { adminKubeconfig } = paths
  if (role === 'server') requireSeveral(paths)
  const client = await loadClient(invocation)
  const { authorityHash, formatToken, joinGroups, newBootstrapToken, newKey } = await import(
    '../../cluster/join/token.ts'
  )
  const { server, authority } = await client.joinPoint(adminKubeconfig)
  const bootstrap = newBootstrapToken()
  const caHash = authorityHash(authority)
  const key = role === 'server' ? newKey() : undefined
  const bundle = key && (await bundleOf(paths, { id: bootstrap.id, key, caHash }))
  const expires = ttl === 0 ? undefined : new Date(Date.now() + ttl)
  const wanted = { ...bootstrap, group: joinGroups[role], expires, description }
  const isUsable = await client.createToken(adminKubeconfig, wanted, bundle || undefined)
  if (!isUsable) {
    invocation.complain(
      'k8s: warning: the token cannot be used yet, as kube-controller-manager has not signed cluster-info with it; see "k8s status"\n',
    )
  }
  const token = formatToken({ ...bootstrap, role, caHash, ...(key && { key }) })
  const runs = role === 'server' ? '--server-mode=ha' : 'agent'
  const command = `k8s ${runs} --server=${server} --token=${token}`
  if (output === 'json') {
    const end = expires?.toISOString() ?? null
    const answer = { id: bootstrap.id, role, token, server, expires: end, description, command }
    invocation.print(`${JSON.stringify(answer, null, 2)}\n`)
    return 0
  }
  invocation.print(`${printJoinCommand ? command : token}\n`)
  if (printJoinCommand) {
    invocation.complain(
      'k8s: who can see the processes of that machine can see the token: --token-file=FILE, with a file of mode 0600, keeps it to root\n',
    )
  }
  return 0
}

/** A server alone keeps the cluster in its own database. */
function requireSeveral({ dataDir }: Paths): void {
  if (storageIn(dataDir) !== 'embedded') return
  throw new AppError(
    `cannot make a token for servers: the cluster of ${dataDir} is that of one server alone (server-mode single)`,
    {
      code: 'SINGLE_SERVER',
      remedy:
        'make it one of several first: k8s migrate --to=ha; machines that run pods join with --role=agent',
    },
  )
}

/** What a further server needs, sealed for this token. */
async function bundleOf(
  { dataDir, pkiDir }: Paths,
  { id, ...given }: { id: string; key: string; caHash: string },
) {
  const { bundleKey, bundleName, readBundle, sealBundle } = await import(
    '../../cluster/join/server-bundle.ts'
  )
  const bundle = await readBundle(pkiDir, readFacts(dataDir).cluster)
  return { name: bundleName(id), key: bundleKey, sealed: sealBundle(bundle, given) }
}
