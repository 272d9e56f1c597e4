import type { AgentConfig, Config } from '../config/config.ts'
import { roleOf } from '../config/roles.ts'
import { chooseForNode } from '../node/facts/choices.ts'
import { serverAccess } from '../components/node-access.ts'
import { detectHost } from '../node/facts/host.ts'
import { pkiFiles } from '../pki/pki.ts'
import { refuseLostKeys } from '../snapshot/lost-keys.ts'
import { takeDataDir } from './daemon.ts'
import { planRole, roleRow } from './plan.ts'
import { type Prepared, type PrepareOptions, settleNode, underWay } from './prepare-node.ts'

/**
 * All that comes before the first process: the data directory, its keys, the machine, its address, the certificates,
 * which are still under way when it returns. What differs with the role of a server is in its row (plan.ts), and where there is no
 * database, none has lost its keys; an agent has to know its cluster first. undefined when the signal ends the wait for what is
 * not there.
 */
export async function prepareRole(
  config: Config | AgentConfig,
  options: PrepareOptions,
): Promise<Prepared | undefined> {
  await takeDataDir(options.paths, options)
  if (config.role === 'server') return prepareServer(config, options)
  // No server pays for it.
  const { prepareAgent } = await import('./agent/prepare.ts')
  return prepareAgent(config, options)
}

async function prepareServer(config: Config, options: PrepareOptions): Promise<Prepared | undefined> {
  const { paths, payload, environment, log } = options
  refuseLostKeys(paths, payload.sqliteAddon)
  const host = detectHost()
  const node = await settleNode(config, options)
  if (node === undefined) return undefined
  const { addresses, moveNode } = node
  const row = roleRow(roleOf(config))
  const credentials = underWay(row.issueCredentials({ config, addresses, paths, log }))
  const plan = planRole(row, {
    ...{ config, addresses, paths, payload, host, credentials, environment, log },
    access: serverAccess(config, paths),
    pki: pkiFiles(paths.pkiDir),
    podCidr: row.podCidr(config, paths),
    choices: chooseForNode(config, host),
  })
  return { plan, moveNode }
}
