import { loadAnyConfig } from '../config/load.ts'
import { schema } from '../config/schema.ts'
import { runAgent } from './agent.ts'
import { type Command, configOption, type Invocation, sourcesOf } from './command.ts'
import { runDatastore } from './datastore.ts'
import { runKubelet } from './kubelet.ts'
import { runServer, server } from './server.ts'

/** `k8s` without a command runs the role of the settings: a server, unless `role` says otherwise. */
export const start: Command = {
  ...server,
  options: { ...configOption, ...schema },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const config = await loadAnyConfig(sourcesOf(invocation))
  switch (config.role) {
    case 'server':
      return runServer(config, invocation)
    case 'agent':
      return runAgent(config, invocation)
    case 'kubelet':
      return runKubelet(config, invocation)
    case 'datastore':
      return runDatastore(config, invocation)
  }
}
