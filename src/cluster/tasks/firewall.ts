import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import { HostFiles } from '../../node/facts/host-files.ts'
import { hostPath } from '../../node/facts/host-path.ts'
import { type Firewall, firewall as firewallOf, type Present } from '../../node/firewall/firewall.ts'
import { isStillThere, type PortMapping, readPortMappings } from '../../node/firewall/port-mappings.ts'
import { runCommand } from '../../supervisor/spawn.ts'
import { Trouble } from '../trouble.ts'
import type { MachineTaskContext, Task } from './task.ts'

const lookIntervalMs = 5_000
/** The rules themselves are read, and not only the names of tables, in each of so many looks. */
const looksBetweenThoroughOnes = 6
/** kube-proxy writes its rules at its start; what cannot be written, or is removed again, is not tried without a pause. */
const retryIntervalMs = 60_000
const commandTimeoutMs = 30_000
/** In the status, as long as they are not there. */
const servicesPart = 'Services'
const portsPart = 'port mappings'

interface LostPorts {
  readonly pod: string
  /** Undefined: it would never work. */
  readonly retryAtMs: number | undefined
}

/**
 * Looks whether the rules are there that pods live by (node/firewall/firewall.ts), from the start on, and has them
 * written again: pods outlive the daemon, and a firewall that is loaded anew takes them away.
 */
export const firewall: Task<MachineTaskContext> = {
  name: 'firewall',
  purpose: 'look after the rules of the firewall',
  leaderOnly: false,
  async run(context, signal) {
    const { config, choices, log, board } = context
    // Nothing is the daemon's to look after where others bring the network, and Services, too.
    if (config.cniConfDir !== undefined && config.disable.includes('kube-proxy')) return
    const watch = new FirewallWatch(firewallOf(choices.proxyMode, config.clusterCidr), context)
    const trouble = new Trouble({ ...firewall, board, log })
    for (let looks = 0; ; looks++) {
      const thorough = looks % looksBetweenThoroughOnes === 0 || watch.hasSuspects
      await trouble.attempt(() => watch.look({ isFirst: looks === 0, thorough, signal }), signal)
      await sleep(lookIntervalMs, undefined, { signal, ref: false })
    }
  },
}

/** What the looks before have found: what is missing once may be about to be written, or to go. */
export class FirewallWatch {
  readonly #firewall: Firewall
  readonly #context: MachineTaskContext
  readonly #files = new HostFiles()
  /** Their rules were not there in the look before. */
  #suspects = new Set<string>()
  /** What could not be mapped again, by its containers. */
  readonly #lost = new Map<string, LostPorts>()
  #restartedAtMs = Number.NEGATIVE_INFINITY

  constructor(rules: Firewall, context: MachineTaskContext) {
    this.#firewall = rules
    this.#context = context
  }

  /** Somebody is to be looked at again, and thoroughly. */
  get hasSuspects(): boolean {
    return this.#suspects.size > 0
  }

  async look({
    isFirst,
    thorough,
    signal,
  }: {
    isFirst: boolean
    thorough: boolean
    signal: AbortSignal
  }): Promise<void> {
    const run = (command: string, args: readonly string[], input?: string) =>
      this.#run(command, args, { input, signal })
    const present = await this.#firewall.read({ run, thorough })
    if (present === undefined) return
    const suspects = new Set<string>()
    const isOwnNetwork = this.#context.config.cniConfDir === undefined
    if (isOwnNetwork && !present.masquerade) {
      await this.#firewall.writeMasquerade(run)
      // Before the first start there is nothing to be told.
      if (!isFirst) this.#context.log.warn('the rules of masquerading were gone, and are there again')
    }
    await this.#services(present, suspects, signal)
    if (isOwnNetwork) await this.#ports(present, suspects, signal)
    this.#suspects = suspects
    // The last, as it is written into a table of others.
    if (isOwnNetwork && !present.forwarding) {
      await this.#firewall.writeForwarding(run)
      this.#context.log.warn(
        'the firewall drops what it has no rule for in its chain FORWARD: what comes from pods and goes to them is let through',
      )
    }
  }

  async #services({ services }: Present, suspects: Set<string>, signal: AbortSignal): Promise<void> {
    const { log, board, restart, isReady } = this.#context
    if (services) return board.forget(servicesPart)
    if (!isReady('kube-proxy')) return
    suspects.add('kube-proxy')
    if (!this.#suspects.has('kube-proxy')) return
    board.report({
      name: servicesPart,
      state: 'degraded',
      message:
        'their rules are gone, as after a firewall was loaded anew; kube-proxy is started anew to write them',
    })
    if (performance.now() - this.#restartedAtMs < retryIntervalMs) return
    this.#restartedAtMs = performance.now()
    log.warn('the rules of Services are gone; kube-proxy is started anew to write them')
    await restart('kube-proxy', signal)
    suspects.delete('kube-proxy')
  }

  async #ports({ hasPorts }: Present, suspects: Set<string>, signal: AbortSignal): Promise<void> {
    const { log, board } = this.#context
    const mappings = readPortMappings(this.#files)
    const running = new Set(mappings.map(({ containerId }) => containerId))
    for (const containerId of this.#lost.keys()) if (!running.has(containerId)) this.#lost.delete(containerId)
    for (const mapping of mappings) {
      const { containerId, pod, families } = mapping
      const isThere = hasPorts(containerId, families)
      if (isThere) this.#lost.delete(containerId)
      if (isThere || !this.#isDue(containerId)) continue
      suspects.add(containerId)
      if (!this.#suspects.has(containerId)) continue
      const failure = await this.#mapPorts(mapping, signal).then(() => undefined, describeError)
      signal.throwIfAborted()
      suspects.delete(containerId)
      if (failure === undefined) {
        this.#lost.delete(containerId)
        log.warn({ pod }, 'the port mappings of the pod were gone, and are there again')
      } else {
        const isKnown = this.#lost.has(containerId)
        const retryAtMs = mapping.request === undefined ? undefined : performance.now() + retryIntervalMs
        this.#lost.set(containerId, { pod, retryAtMs })
        if (isKnown) continue
        log.error(
          { pod, reason: failure, remedy: 'delete the pod: a new one gets them' },
          'the port mappings of the pod are gone',
        )
      }
    }
    if (this.#lost.size === 0) return board.forget(portsPart)
    const pods = [...new Set([...this.#lost.values()].map(({ pod }) => pod))].join(', ')
    board.report({
      name: portsPart,
      state: 'degraded',
      message: `gone of ${pods}: delete these pods, new ones get them`,
    })
  }

  /** What failed once may work when whoever removes rules is done with it. */
  #isDue(containerId: string): boolean {
    const lost = this.#lost.get(containerId)
    return lost === undefined || (lost.retryAtMs !== undefined && performance.now() >= lost.retryAtMs)
  }

  async #mapPorts(mapping: PortMapping, signal: AbortSignal): Promise<void> {
    const { environment, request } = mapping
    if (request === undefined) throw new Error('nothing was kept of how they were made')
    const { cniBinDir } = this.#context.payload
    const call = (action: 'ADD' | 'DEL') =>
      this.#run(join(cniBinDir, 'portmap'), [], {
        input: request,
        signal,
        env: { ...environment, CNI_COMMAND: action, CNI_PATH: cniBinDir },
      })
    await call('ADD')
    // A pod that ended meanwhile has had them taken away before.
    if (!isStillThere(this.#files, mapping)) await call('DEL')
  }

  async #run(
    command: string,
    args: readonly string[],
    {
      input,
      env,
      signal,
    }: { input: string | undefined; env?: Readonly<Record<string, string>>; signal: AbortSignal },
  ): Promise<string> {
    const { stdout } = await runCommand({
      ...{ command, args, signal, timeoutMs: commandTimeoutMs },
      env: { PATH: hostPath, ...env },
      ...(input !== undefined && { input }),
    })
    return stdout
  }
}
