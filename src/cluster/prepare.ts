import { existsSync } from 'node:fs'
import type { AgentConfig, Config, KubeletConfig } from '../config/config.ts'
import { readNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { takeDataDir } from './daemon.ts'
import type { Prepared, PrepareOptions } from './prepare-node.ts'

/**
 * All that comes before the first process: the data directory, its keys, the machine, its address, the certificates,
 * which are still under way when it returns. undefined when the signal ends the wait for what is not there. No role loads what
 * another one needs.
 */
export async function prepareRole(
  config: Config | AgentConfig | KubeletConfig,
  options: PrepareOptions,
): Promise<Prepared | undefined> {
  await takeDataDir(options.paths, options)
  switch (config.role) {
    case 'server': {
      const { prepareServer } = await import('./server/prepare.ts')
      return prepareServer(config, options)
    }
    case 'agent': {
      const { prepareAgent } = await import('./agent/prepare.ts')
      return prepareAgent(config, options)
    }
    case 'kubelet': {
      const { prepareKubelet } = await import('./kubelet/prepare.ts')
      return prepareKubelet(config, options)
    }
  }
}

/** Whether it is a server whose cluster is that of others, and which has not been given all of it. */
export function isNewcomer({ server = [], token, tokenFile }: Config, paths: Paths): boolean {
  if (existsSync(paths.clusterFacts)) return false
  return server.length > 0 || (token ?? tokenFile) !== undefined || readNodeRecord(paths).isJoining === true
}
