import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import { publicMode, writeFileAtomically } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import type { Addresses } from '../components/component.ts'
import type { Config, MachineConfig } from '../config/config.ts'
import { updateNodeRecord } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { loopbackAddresses } from '../node/facts/addresses.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { readHeldAddress, readLastAddress, readLastOtherAddress } from '../node/facts/node-record.ts'
import {
  chooseNodeAddress,
  chooseOtherAddress,
  describePassedOver,
  type Network,
  type NodeAddress,
  readNetwork,
} from '../node/facts/node-address.ts'
import type { Payload } from '../payload/payload.ts'
import { runCommand } from '../supervisor/spawn.ts'
import { startExtensionMs } from './daemon.ts'

/** How often a machine without an address is looked at. */
const lookIntervalMs = 2_000
/** How often its operator is told again what is waited for, in looks. */
const looksBetweenMessages = 15
const commandTimeoutMs = 10_000

export function addressesOf(
  config: MachineConfig & Pick<Partial<Config>, 'advertiseAddress'>,
  nodeIp: string,
  otherNodeIp?: string,
): Addresses {
  return { nodeIp, otherNodeIp, advertiseAddress: config.advertiseAddress ?? nodeIp }
}

interface AddressOptions {
  readonly config: MachineConfig
  readonly paths: Paths
  readonly log: Logger
  readonly notify: Pick<Notifier, 'status' | 'extendTimeout'>
  /** Ends the wait. */
  readonly signal: AbortSignal
  /** What is looked at; tests give another machine. */
  readonly look?: (last: string | undefined) => Promise<Network>
  readonly intervalMs?: number
}

interface SettledAddress extends NodeAddress {
  /** What was remembered. */
  readonly former: string | undefined
  /** Of the cluster's second family. */
  readonly other: string | undefined
}

/**
 * The Node's address, remembered for the next start. On a machine that has none, and never had, it waits until there
 * is one: nothing can start without it, and no user wrote anything wrong. undefined when the signal ends the wait.
 */
export async function settleNodeAddress(options: AddressOptions): Promise<SettledAddress | undefined> {
  const { config, paths, log, notify, signal } = options
  const held = readHeldAddress(paths.heldAddress)
  const otherLast = readLastOtherAddress(paths.nodeRecord)
  const look = options.look ?? ((last) => readNetwork(new HostFiles(), { ...config, last, otherLast, held }))
  for (let looks = 0; !signal.aborted; looks++) {
    const network = await look(readLastAddress(paths.nodeRecord))
    const chosen = chooseNodeAddress(config, network)
    if (chosen !== undefined) {
      const other = chooseOtherAddress(config, network)
      if (network.other !== undefined && other === undefined)
        log.warn(
          "no interface has an address of the cluster's second family: the Node has one of the first alone until one has",
        )
      if (chosen.isPresent) rememberAddress({ address: chosen.address, other }, { paths, log })
      else if (chosen.address !== network.last)
        log.warn({ address: chosen.address }, 'no interface has the address of the Node')
      return { ...chosen, former: network.last, other }
    }
    if (looks % looksBetweenMessages === 0) {
      const reason = describePassedOver(config, network)
      log.warn({ reason }, 'waiting for an address: this machine has none that the Node could have')
      notify.extendTimeout(startExtensionMs)
      notify.status(`waiting for an address of this machine: ${reason}`)
    }
    await sleep(options.intervalMs ?? lookIntervalMs, undefined, { signal }).catch(() => {})
  }
  return undefined
}

interface HoldOptions {
  readonly payload: Pick<Payload, 'cniBinDir'>
  readonly paths: Pick<Paths, 'heldAddress'>
  readonly log: Logger
  readonly former: string | undefined
  /** What lo has; default: this machine's. */
  readonly onLoopback?: readonly string[]
}

/**
 * Keeps the Node's address on lo while no interface has it, and takes away what was kept before. Repeatable. One that
 * the Node never had is left to whoever wrote it, and what somebody else has put on lo is his.
 */
export async function holdWhileAway(
  { address, isPresent }: NodeAddress,
  { payload, paths, log, former, onLoopback = loopbackAddresses() }: HoldOptions,
): Promise<void> {
  const change = (action: 'address-hold' | 'address-release', which: string) =>
    runCommand({
      command: join(payload.cniBinDir, 'cni'),
      args: [action, which],
      env: {},
      timeoutMs: commandTimeoutMs,
    })
  const held = readHeldAddress(paths.heldAddress)
  if (held !== undefined && (held !== address || isPresent)) {
    await change('address-release', held)
    await rm(paths.heldAddress, { force: true })
    log.info({ address: held }, 'the address is no longer kept on lo')
  }
  if (isPresent || address !== former || onLoopback.includes(address)) return
  await writeFileAtomically(paths.heldAddress, `${address}\n`, { mode: publicMode, durable: 'nothing' })
  await change('address-hold', address)
  log.warn({ address }, 'no interface has the address of the Node: it is kept on lo until one has')
}

/**
 * The addresses of the two families, for the next start; one of the second that is away is not forgotten. A full disk is no
 * reason not to start: they are found anew while there is a network.
 */
export function rememberAddress(
  { address, other }: { address: string; other: string | undefined },
  { paths, log }: Pick<AddressOptions, 'paths' | 'log'>,
): void {
  const { nodeRecord } = paths
  if (
    readLastAddress(nodeRecord) === address &&
    (other === undefined || readLastOtherAddress(nodeRecord) === other)
  )
    return
  try {
    updateNodeRecord(paths, { address, ...(other !== undefined && { otherAddress: other }) })
  } catch (error) {
    log.warn({ path: nodeRecord, reason: describeError(error) }, 'cannot remember the address of the Node')
  }
}
