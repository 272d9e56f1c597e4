import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import { type Addresses, type ComponentName, nodeIps } from '../../components/component.ts'
import { HostFiles } from '../../node/facts/host-files.ts'
import { readHeldAddress, readLastAddress, readLastOtherAddress } from '../../node/facts/node-record.ts'
import { chooseNodeAddress, chooseOtherAddress, readNetwork } from '../../node/facts/node-address.ts'
import { holdWhileAway, rememberAddress } from '../node-address.ts'
import type { MachineTaskContext, Task } from './task.ts'

const lookIntervalMs = 5_000
/** In the status, while it cannot be followed. */
const partName = 'node address'

/** Those that are told an address by a flag, or take it from the Node once: in the order in which they need each other. */
const toldByFlag: readonly ComponentName[] = ['etcd', 'kube-apiserver', 'kubelet', 'kube-proxy']
/** Those of them that know the address of the second family, too. */
const toldBoth: readonly ComponentName[] = ['kubelet', 'kube-proxy']

/**
 * Follows the machine's address with certificates, the API server's endpoints and the Node. One that a user wrote is the
 * Node's for good. While no interface has it, it is kept on lo: the kubelet reports nothing for an address that the machine has not.
 */
export const nodeAddress: Task<MachineTaskContext> = {
  name: 'node-address',
  purpose: "follow the machine's address",
  leaderOnly: false,
  async run(context, signal) {
    const { config, addresses, paths, log, board, whenReady } = context
    const files = new HostFiles()
    const change = new SettledChange()
    // Without a cluster there is no API.
    await Promise.race([whenReady('api'), whenReady('node')])
    for (;;) {
      await sleep(lookIntervalMs, undefined, { signal, ref: false })
      const { nodeIp, otherNodeIp } = addresses()
      try {
        const network = await readNetwork(files, {
          ...{ ...config, last: nodeIp, otherLast: otherNodeIp ?? readLastOtherAddress(paths.nodeRecord) },
          held: readHeldAddress(paths.heldAddress),
        })
        const chosen = chooseNodeAddress(config, network)
        if (chosen === undefined) continue
        const found = { nodeIp: chosen.address, otherNodeIp: chooseOtherAddress(config, network) }
        const [current, next] = [{ nodeIp, otherNodeIp }, found].map((pair) => nodeIps(pair).join(','))
        if (current === undefined || next === undefined || !change.isSettled(current, next)) continue
        if (next !== current) await follow(context, found, signal)
        await holdWhileAway(chosen, { ...context, former: readLastAddress(paths.nodeRecord) })
        if (chosen.isPresent)
          rememberAddress({ address: found.nodeIp, other: found.otherNodeIp }, { paths, log })
        board.forget(partName)
      } catch (error) {
        signal.throwIfAborted()
        const message = `cannot follow the machine's address: ${describeError(error)}`
        if (board.part(partName) === undefined) log.error(`${message}; it is tried again`)
        board.report({ name: partName, state: 'degraded', message })
      }
    }
  },
}

/** An address that is there in two looks: networks come and go while they are set up. */
export class SettledChange {
  #seen: string | undefined

  /** Whether `found` is what it was, or has been found in the look before, too. */
  isSettled(current: string, found: string): boolean {
    const isSettled = found === current || found === this.#seen
    this.#seen = found
    return isSettled
  }
}

type FollowContext = Pick<
  MachineTaskContext,
  'addresses' | 'issueCredentials' | 'log' | 'moveNode' | 'restart'
>

/** Rejects, with the former addresses as they were, when there are no certificates for the new ones. */
export async function follow(
  context: FollowContext,
  { nodeIp, otherNodeIp }: Pick<Addresses, 'nodeIp' | 'otherNodeIp'>,
  signal: AbortSignal,
): Promise<void> {
  const { addresses, issueCredentials, log, moveNode, restart } = context
  const former = addresses()
  moveNode(nodeIp, otherNodeIp)
  try {
    await issueCredentials()
  } catch (error) {
    // A full disk: the next look finds the address changed again.
    moveNode(former.nodeIp, former.otherNodeIp)
    throw error
  }
  const [from, to] = [former, { nodeIp, otherNodeIp }].map((pair) => nodeIps(pair).join(','))
  log.warn({ from, to }, "the machine's address has changed: API server and Node follow")
  for (const name of former.nodeIp === nodeIp ? toldBoth : toldByFlag) {
    await restart(name, signal).catch((error: unknown) => {
      signal.throwIfAborted()
      // It is tried again by whoever keeps it running.
      log.error({ component: name, reason: describeError(error) }, 'not ready with the new address yet')
    })
  }
  log.info({ address: to }, "the machine's new address is the Node's")
}
