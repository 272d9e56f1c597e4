import type { AgentConfig } from '../config/config.ts'
import { loadAnyConfig } from '../config/load.ts'
import { settingsOf } from '../config/schema.ts'
import { type Command, configOption, type Invocation, requireRoot, sourcesOf } from './command.ts'
import { runMachine } from './run-options.ts'

export const agent: Command = {
  name: 'agent',
  description: 'Run a node of a cluster whose servers are elsewhere, in the foreground.',
  details: `The first start joins the cluster, with a token that \`k8s token create\` prints on a server. Later ones need neither
token nor server: what this machine was told is kept in its data directory. Servers that are away are waited for.`,
  examples: [
    {
      command: 'k8s agent --server=https://192.0.2.10:6443 --token-file=/etc/k8s/token',
      description: 'Join the cluster of that server, and run',
    },
    { command: 'k8s agent', description: 'Run what has joined before' },
  ],
  options: { ...configOption, ...settingsOf('agent') },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const config = await loadAnyConfig({ ...sourcesOf(invocation), role: 'agent' })
  if (config.role !== 'agent') throw new Error('bug: the role is not what was asked for')
  return runAgent(config, invocation)
}

/** Runs the node until a signal ends it; returns the exit code. */
export async function runAgent(config: AgentConfig, invocation: Invocation): Promise<number> {
  const { environment, flags, complain } = invocation
  requireRoot('run an agent', 'use sudo, or start it with systemctl start k8s')
  if (flags.some(({ name }) => name === 'token')) {
    complain('k8s: warning: other users of this machine can read --token; use --token-file or K8S_TOKEN\n')
  }
  return runMachine(config, environment)
}
