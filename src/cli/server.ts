import type { Config } from '../config/config.ts'
import { type JoinedFacts, loadConfig } from '../config/load.ts'
import { servers } from '../config/roles.ts'
import { settingsOf } from '../config/schema.ts'
import { type Command, configOption, type Invocation, requireRoot, sourcesOf } from './command.ts'
import { runMachine } from './run-options.ts'

export const server: Command = {
  name: 'server',
  description: 'Run the cluster in the foreground.',
  details: `Starts the datastore, containerd and the components of Kubernetes, keeps them running, and stops them
in reverse on SIGTERM or SIGINT; a second signal hurries the stop. Pods keep running meanwhile.

Every flag is a setting: --node-name is K8S_NODE_NAME in the environment and node-name in the
configuration file. A flag wins over the environment, and that over the file.`,
  examples: [
    { command: 'k8s', description: 'Run a cluster of one node with all defaults' },
    {
      command: 'k8s --server-mode=single --data-dir=/srv/k8s --node-label=disk=ssd',
      description: 'Keep its data elsewhere, and label the node',
    },
    {
      command: 'k8s --kubelet-arg=max-pods=200 --v=4',
      description: 'Pass a flag on to the kubelet, with more words in all logs',
    },
  ],
  options: { ...configOption, ...settingsOf(...servers) },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  return runServer(await loadConfig(sourcesOf(invocation)), invocation)
}

/** Runs the cluster until a signal ends it; returns the exit code. */
export async function runServer(config: Config, invocation: Invocation): Promise<number> {
  const { environment } = invocation
  requireRoot('run the server', 'use sudo, or start it with systemctl start k8s')
  const withFacts = (joined: JoinedFacts) => loadConfig({ ...sourcesOf(invocation), warn: () => {}, joined })
  return runMachine(config, environment, { withFacts })
}
