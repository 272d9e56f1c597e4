import { AppError, describeError } from '../base/errors.ts'
import type { Config, MachineConfig } from '../config/config.ts'
import type { JoinedFacts } from '../config/load.ts'
import type { Paths } from '../config/paths.ts'
import { ipv6Fault } from '../node/render/sysctls.ts'
import type { Board } from './condition.ts'
import type { DaemonOptions } from './daemon.ts'
import { addressesOf, holdWhileAway, settleNodeAddress } from './node-address.ts'
import type { Plan } from './plan.ts'
import { isPutOff } from './renewals.ts'

export interface PrepareOptions extends Pick<DaemonOptions, 'payload' | 'log' | 'notify'> {
  readonly paths: Paths
  /** The variables of the process. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly board: Board
  /** The settings of a server again, with what is fixed in the cluster that it joins. Rejects with USAGE. */
  readonly withFacts?: ((joined: JoinedFacts) => Promise<Config>) | undefined
  /** Ends the wait for an address, or for a server. */
  readonly signal: AbortSignal
}

export interface Prepared {
  readonly plan: Plan
  /** The Node has other addresses from now on. */
  readonly moveNode: (nodeIp: string, otherNodeIp?: string) => void
}

/** The Node's address, as it is from now on; undefined when the signal ends the wait for one. */
export async function settleNode(config: MachineConfig, options: PrepareOptions) {
  const { paths, payload, log } = options
  const fault = config.clusterCidr.includes(':') ? ipv6Fault() : undefined
  if (fault !== undefined) throw withoutIPv6(config, fault)
  const node = await settleNodeAddress({ ...options, config })
  if (node === undefined) return undefined
  await holdWhileAway(node, { payload, paths, log, former: node.former }).catch((error: unknown) =>
    log.error({ reason: describeError(error) }, 'cannot keep the address of the Node on lo'),
  )
  let [nodeIp, otherNodeIp] = [node.address, node.other]
  return {
    addresses: () => addressesOf(config, nodeIp, otherNodeIp),
    moveNode: (address: string, other?: string) => {
      nodeIp = address
      otherNodeIp = other
    },
  }
}

/** Before anything of the cluster is written down, where it is a new one. */
function withoutIPv6({ clusterCidr }: MachineConfig, fault: string): AppError {
  return new AppError(`cannot give pods addresses of cluster-cidr ${clusterCidr}: ${fault}`, {
    code: 'NO_IPV6',
    remedy: 'turn IPv6 on, or create the cluster with ranges of IPv4 alone',
  })
}

/** What could not be renewed and can be used is the value; whoever needs what is issued waits for it. */
export function underWay(issued: Promise<void>): Promise<AppError | undefined> {
  const credentials = issued.then(
    () => undefined,
    (error: unknown) => {
      // The task `certificates` tells it, and tries again.
      if (isPutOff(error)) return error
      throw error
    },
  )
  // Whoever needs them waits for them; until then a failure is nobody's unhandled one.
  credentials.catch(() => {})
  return credentials
}
