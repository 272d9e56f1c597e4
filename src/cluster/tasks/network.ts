import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openApi } from '../../api/client.ts'
import { familyOf, ofFamilies, parseRange } from '../../base/address.ts'
import { AppError } from '../../base/errors.ts'
import { publicMode, writeFileAtomically } from '../../base/files.ts'
import { nodeIps } from '../../components/component.ts'
import { type NetworkBackend, networkBackends } from '../../config/settings/cluster.ts'
import {
  type ClusterNetwork,
  type DesiredNetwork,
  desiredNetwork,
  type NodeFacts,
  noNetwork,
  rangeShortage,
} from '../../network/desired.ts'
import { watchNodes } from '../../network/node-watch.ts'
import { HostFiles } from '../../node/facts/host-files.ts'
import { hostPath } from '../../node/facts/host-path.ts'
import { nodeCidrMaskSize } from '../../node/render/cni-config.ts'
import { applySysctls, networkSysctls } from '../../node/render/sysctls.ts'
import { runCommand } from '../../supervisor/spawn.ts'
import { networkBackendOf } from '../join/network-backend.ts'
import { Trouble } from '../trouble.ts'
import { Wakeup } from '../wakeup.ts'
import { watchAccess } from '../watch-access.ts'
import type { NodeTaskContext, Task } from './task.ts'

/** How often it is looked whether all is still there; each look is a process of a few milliseconds. */
const lookIntervalMs = 10_000
/** How often the cluster is asked for its backend. */
const backendIntervalMs = 30_000
const commandTimeoutMs = 30_000
/** Of Nodes that are named in the status. */
const namedLimit = 5
const namedChangesLimit = 20

/**
 * Leads to the pods of other nodes (network/desired.ts), and looks again and again whether what leads there is still there.
 * While there is one Node it waits for a second one, and nothing is made.
 */
export const network: Task = {
  name: 'network',
  purpose: "lead to other nodes' pods",
  leaderOnly: false,
  async run(context, signal) {
    const { access, board, log } = context
    await context.whenReady('node')
    const keeper = new NetworkKeeper(context)
    const trouble = new Trouble({ ...network, board, log })
    let nodes: ReadonlyMap<string, NodeFacts> | undefined
    const wakeup = new Wakeup()
    const over = new AbortController()
    const watching = watchNodes({
      ...watchAccess(context, {
        ...{ name: 'nodes', what: 'the Nodes', access: access.nodes },
        ...{ wakeup, signal: AbortSignal.any([signal, over.signal]) },
      }),
      onChange(found) {
        nodes = found
        wakeup.wake()
      },
    })
    try {
      for (;;) {
        // While there is nothing to be looked after, a change of the Nodes is waited for.
        await wakeup.wait(keeper.isInUse ? lookIntervalMs : undefined, signal)
        const known = nodes
        if (known !== undefined) await trouble.attempt(() => keeper.look(known, signal), signal)
      }
    } finally {
      over.abort()
      await watching
    }
  },
}

/** What `cni network-apply` prints. */
interface NetworkReport {
  readonly changed: readonly string[]
  readonly failed: readonly { readonly node?: string; readonly reason: string }[]
}

export type KeeperContext = Pick<
  NodeTaskContext,
  'access' | 'addresses' | 'config' | 'log' | 'paths' | 'payload'
>

/** Makes the kernel's state what the Nodes say. */
export class NetworkKeeper {
  readonly #context: KeeperContext
  readonly #root: string
  #isInUse: boolean
  #applied = ''
  #backend: { readonly value: NetworkBackend; readonly readAtMs: number } | undefined

  /** root: where the kernel's settings are; tests have their own. */
  constructor(context: KeeperContext, { root = '/' }: { root?: string } = {}) {
    this.#context = context
    this.#root = root
    this.#isInUse = existsSync(context.paths.networkMark)
  }

  /** Something of ours is, or shall be, in the kernel. */
  get isInUse(): boolean {
    return this.#isInUse
  }

  /** Rejects with what cannot be reached, when everything else is led to. */
  async look(nodes: ReadonlyMap<string, NodeFacts>, signal: AbortSignal): Promise<void> {
    const { addresses, config, log } = this.#context
    const own = nodes.get(config.nodeName)
    const others = [...nodes.values()].filter(({ name }) => name !== config.nodeName)
    if (own === undefined) return
    if (own.podCidrs.length === 0) {
      const shortage = rangeShortage(ofFamilies(config.clusterCidr), others)
      if (shortage !== undefined) throw new AppError(shortage, { code: 'NETWORK_NODES' })
      return
    }
    if (others.length === 0 && !this.#isInUse) return
    const backend = await this.#readBackend(signal)
    const { desired, refused } = desiredNetwork(
      clusterNetwork(config, { backend, own }),
      { ...own, addresses: nodeIps(addresses()) },
      others,
    )
    const failed: { readonly name: string; readonly reason: string }[] = [...refused]
    if (desired !== noNetwork || this.#isInUse) {
      const report = await this.#apply(desired, signal)
      this.#tell(desired, report)
      for (const { node = 'this machine', reason } of report.failed) failed.push({ name: node, reason })
    }
    if (failed.length === 0) return
    const named = failed.slice(0, namedLimit).map(({ name, reason }) => `${name}: ${reason}`)
    const rest = failed.length > namedLimit ? [`and ${failed.length - namedLimit} more`] : []
    log.debug({ failed }, 'nodes that are not led to')
    throw new AppError(`not all pods of other nodes are reached: ${[...named, ...rest].join('; ')}`, {
      code: 'NETWORK_NODES',
    })
  }

  async #apply(desired: DesiredNetwork, signal: AbortSignal): Promise<NetworkReport> {
    const { config, paths, payload } = this.#context
    if (desired !== noNetwork) {
      // Whoever removes it has to know that there is something.
      if (!this.#isInUse)
        await writeFileAtomically(paths.networkMark, '', { mode: publicMode, durable: 'nothing' })
      this.#isInUse = true
      const files = new HostFiles(this.#root)
      applySysctls(networkSysctls(config.clusterCidr, files), { root: this.#root })
    }
    const { stdout } = await runCommand({
      ...{ command: join(payload.cniBinDir, 'cni'), args: ['network-apply'], env: { PATH: hostPath } },
      ...{ input: JSON.stringify(desired), timeoutMs: commandTimeoutMs, signal },
    })
    const report = JSON.parse(stdout) as NetworkReport
    if (desired === noNetwork && report.failed.length === 0) {
      await rm(paths.networkMark, { force: true })
      this.#isInUse = false
    }
    return report
  }

  #tell(desired: DesiredNetwork, { changed }: NetworkReport): void {
    const { log } = this.#context
    const text = JSON.stringify(desired)
    const isAsBefore = text === this.#applied
    this.#applied = text
    if (changed.length === 0) return
    const fields = {
      changed: changed.slice(0, namedChangesLimit),
      ...(changed.length > namedChangesLimit && { more: changed.length - namedChangesLimit }),
    }
    if (isAsBefore) log.warn(fields, "what leads to other nodes' pods was not as it was made, and is again")
    else
      log.info(
        { backend: desired.backend, nodes: desired.peers.length, ...fields },
        'the network between nodes has changed',
      )
  }

  /** The cluster's, which its servers have written down (addons/joining.ts); until then, that of this node's settings. */
  async #readBackend(signal: AbortSignal): Promise<NetworkBackend> {
    const { access, config } = this.#context
    // Who brings the pods' network leads to them, too.
    if (config.cniConfDir !== undefined) return 'none'
    const known = this.#backend
    if (known !== undefined && performance.now() - known.readAtMs < backendIntervalMs) return known.value
    const read = async () => {
      using api = await openApi(access, signal)
      return await networkBackendOf(api)
    }
    const text = await read().catch(() => undefined)
    signal.throwIfAborted()
    const value = networkBackends.find((one) => one === text) ?? known?.value ?? config.networkBackend
    this.#backend = { value, readAtMs: performance.now() }
    return value
  }
}

function clusterNetwork(
  { clusterCidr, serviceCidr, vxlanChecksumOffload }: NodeTaskContext['config'],
  { backend, own }: { backend: NetworkBackend; own: NodeFacts },
): ClusterNetwork {
  const clusterCidrs = ofFamilies(clusterCidr)
  // Whoever gives Nodes other ranges than we would has given this one such a range, too.
  const shortest = (family: 4 | 6, width: number) => {
    const cidrs = clusterCidrs.filter((cidr) => familyOf(cidr) === family)
    const prefixes = own.podCidrs.flatMap((text) => parseRange(text) ?? [])
    return Math.min(
      ...cidrs.map(nodeCidrMaskSize),
      ...prefixes.filter(({ first }) => first.family === family).map(({ prefix }) => prefix),
      width,
    )
  }
  return {
    backend,
    checksumOffload: vxlanChecksumOffload,
    clusterCidrs,
    serviceCidrs: ofFamilies(serviceCidr),
    shortestPrefix: { 4: shortest(4, 32), 6: shortest(6, 128) },
  }
}
