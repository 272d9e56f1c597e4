import { describeError } from '../base/errors.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import { roleOf } from '../config/roles.ts'
import { chooseForNode } from '../node/facts/choices.ts'
import { serverAccess } from '../components/node-access.ts'
import { detectHost } from '../node/facts/host.ts'
import { pkiFiles } from '../pki/pki.ts'
import { refuseLostKeys } from '../snapshot/lost-keys.ts'
import { isPutOff } from './credentials.ts'
import { takeDataDir, type DaemonOptions } from './daemon.ts'
import { addressesOf, holdWhileAway, settleNodeAddress } from './node-address.ts'
import { type Plan, planRole, roleRow } from './plan.ts'

interface PrepareOptions extends Pick<DaemonOptions, 'payload' | 'log' | 'notify'> {
  readonly paths: Paths
  /** The variables of the process. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Ends the wait for an address. */
  readonly signal: AbortSignal
}

export interface Prepared {
  readonly plan: Plan
  /** The Node has another address from now on. */
  readonly moveNode: (nodeIp: string) => void
}

/**
 * All that comes before the first process: the data directory, its keys, the machine, its address, the certificates,
 * which are still under way when it returns. What differs with the role is in its row (plan.ts), and where there is no
 * database, none has lost its keys. undefined when the signal ends the wait for an address.
 */
export async function prepareRole(config: Config, options: PrepareOptions): Promise<Prepared | undefined> {
  const { paths, payload, environment, log } = options
  await takeDataDir(paths, options)
  refuseLostKeys(paths, payload.sqliteAddon)
  const host = detectHost()
  const node = await settleNodeAddress({ ...options, config })
  if (node === undefined) return undefined
  await holdWhileAway(node, { payload, paths, log, former: node.former }).catch((error: unknown) =>
    log.error({ reason: describeError(error) }, 'cannot keep the address of the Node on lo'),
  )
  let nodeIp = node.address
  const addresses = () => addressesOf(config, nodeIp)
  const row = roleRow(roleOf(config))
  const credentials = row.issueCredentials({ config, addresses, paths, log }).then(
    () => undefined,
    (error: unknown) => {
      // The task `certificates` tells it, and tries again.
      if (isPutOff(error)) return error
      throw error
    },
  )
  // Whoever needs them waits for them; until then a failure is nobody's unhandled one.
  credentials.catch(() => {})
  const plan = planRole(row, {
    ...{ config, addresses, paths, payload, host, credentials, environment, log },
    access: serverAccess(config, paths),
    pki: pkiFiles(paths.pkiDir),
    podCidr: row.podCidr(config, paths),
    choices: chooseForNode(config, host),
  })
  return { plan, moveNode: (address) => void (nodeIp = address) }
}
