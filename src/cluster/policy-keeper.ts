/*
 * Keeps the rules of NetworkPolicy in the kernel as policies, namespaces and pods would have them:
 *
 *    watches ──▶ engine (network/policy/engine.ts) ──▶ one transaction of nft with what differs
 *    libcni's records of pods ──┘                  └──▶ or all at once: at first, and when something of it is gone
 *
 * The rules stay when the daemon ends. Addresses of this node that belong to no pod that is known are let through neither way:
 * a new pod sends nothing before its policies are there. Its records are there before its containers, so that takes
 * milliseconds, but while the API server is away nobody knows of pods that are new: then they are let through.
 */
import { existsSync, type FSWatcher, watch as watchDirectory } from 'node:fs'
import { rm } from 'node:fs/promises'
import { setImmediate as turn } from 'node:timers/promises'
import { watchObjects } from '../api/watch.ts'
import { familyOf, formatRange, parseRange } from '../base/address.ts'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import type { Exposition } from '../base/exposition.ts'
import { publicMode, writeFileAtomically } from '../base/files.ts'
import { readNode } from '../components/node.ts'
import { Connections } from '../network/policy/connections.ts'
import { PolicyEngine } from '../network/policy/engine.ts'
import { type Family, namespaceFacts, podFacts } from '../network/policy/facts.ts'
import {
  type Head,
  readCounts,
  removal,
  renderAll,
  renderChanges,
  renderKnown,
  look,
  isThere,
  isWhole,
} from '../network/policy/nft.ts'
import { RuntimePods } from '../network/policy/runtime-pods.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { cniResultsDir } from '../node/firewall/port-mappings.ts'
import { bridgeName } from '../node/render/cni-config.ts'
import { applySysctls, bridgeSettings } from '../node/render/sysctls.ts'
import { runCommand } from '../supervisor/spawn.ts'
import { ObjectEvents } from './object-events.ts'
import { policyAccess } from './policy-access.ts'
import type { NodeTaskContext } from './tasks/task.ts'
import type { Wakeup } from './wakeup.ts'

const lookIntervalMs = 5_000
/** The rules are read, and not only the names of chains, in each of so many looks. */
const looksBetweenThoroughOnes = 6
const commandTimeoutMs = 60_000
/** What else the daemon has to do waits no longer than that. */
const sliceMs = 8
/** Ended ones and those with their node's address are nobody's peers. */
const podsPath = `/api/v1/pods?fieldSelector=${encodeURIComponent('status.phase!=Succeeded,status.phase!=Failed,spec.hostNetwork=false')}`
const sctpSysctl = '/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established'

export interface KeeperOptions {
  readonly wakeup: Wakeup
  readonly signal: AbortSignal
  /** Where the kernel's settings are; tests have their own. */
  readonly root?: string
  /** Runs the program, and gives what it prints; tests have their own. */
  readonly nft?: typeof runNft
}

export type KeeperContext = Pick<NodeTaskContext, 'access' | 'board' | 'config' | 'log' | 'paths'>

export class PolicyKeeper {
  readonly engine: PolicyEngine
  readonly lookIntervalMs = lookIntervalMs
  readonly #context: KeeperContext
  readonly #wakeup: Wakeup
  readonly #run: typeof runNft
  readonly #signal: AbortSignal
  readonly #files: HostFiles
  readonly #runtime: RuntimePods
  readonly #events: ObjectEvents
  readonly #over = new AbortController()
  readonly #watching: Promise<unknown>
  readonly #families: readonly Family[]
  readonly #listed = { pods: false, namespaces: false }
  readonly #isAway: () => boolean
  #directory: FSWatcher | undefined
  #isRuntimeRead = false
  /** Of pods of this node, as the runtime has them. */
  #addresses: ReadonlySet<string> = new Set()
  /** Let through although nobody knows whose they are. */
  readonly #strangers = new Set<string>()
  #ranges: readonly string[] | undefined
  /** What the kernel has is not known, or not what it should. */
  #isStale = true
  #lookedAtMs = Number.NEGATIVE_INFINITY
  #looks = 0
  readonly #connections = new Connections()

  constructor(context: KeeperContext, { wakeup, signal, root = '/', nft = runNft }: KeeperOptions) {
    const { config } = context
    this.#context = context
    this.#wakeup = wakeup
    this.#run = nft
    this.#signal = AbortSignal.any([signal, this.#over.signal])
    this.#files = new HostFiles(root)
    this.#runtime = new RuntimePods(this.#files)
    this.#events = new ObjectEvents(context, {
      ...{
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        access: context.access.policies,
      },
      logged: 'a network policy is not enforced as it stands',
    })
    this.#families = [...new Set(config.clusterCidr.split(',').map(familyOf))]
    this.engine = new PolicyEngine({ nodeName: config.nodeName, families: this.#families })
    const access = (name: string, what: string) =>
      policyAccess(context, { ...{ name, what, wakeup }, signal: this.#signal })
    const [pods, namespaces] = [
      access('network-policy-pods', 'the pods that policies are about'),
      access('network-policy-namespaces', 'the namespaces that policies are about'),
    ]
    this.#isAway = () => pods.isAway() || namespaces.isAway()
    const then = (change: () => void) => {
      change()
      wakeup.wake()
    }
    this.#watching = Promise.all([
      watchObjects({
        ...{ ...pods, path: podsPath, factsOf: podFacts },
        onAll: (all) =>
          then(() => {
            this.#listed.pods = true
            this.engine.setAll({ pods: all })
          }),
        onOne: (key, facts) => then(() => this.engine.setPod(key, facts)),
      }),
      watchObjects({
        ...{ ...namespaces, path: '/api/v1/namespaces', factsOf: namespaceFacts },
        onAll: (all) =>
          then(() => {
            this.#listed.namespaces = true
            this.engine.setAll({ namespaces: all })
          }),
        onOne: (name, labels) => then(() => this.engine.setNamespace(name, labels)),
      }),
    ])
  }

  async stop(): Promise<void> {
    this.#directory?.close()
    this.#over.abort()
    await this.#watching
  }

  /** Brings the kernel to what is known now. Rejects with what is in the way; what is there stays. */
  async pass({
    isKnown,
    isAway,
    nowMs = performance.now(),
  }: {
    /** Whether all policies are. */
    isKnown: boolean
    /** Whether the API server has not told of them for a while. */
    isAway: boolean
    nowMs?: number
  }): Promise<void> {
    const isDue = nowMs - this.#lookedAtMs >= lookIntervalMs
    this.#watchRuntime()
    this.#readRuntime(isDue)
    const { pods, namespaces } = this.#listed
    if (isKnown && pods && namespaces) {
      if (isDue) this.#lookedAtMs = nowMs
      await this.#work()
      if (isDue) await this.#look()
      await this.#apply()
      await this.#tellProblems()
    }
    await this.#letThrough(isAway || this.#isAway())
    if (isDue) this.#assertBridge()
  }

  summary(): string {
    const { policies, selectedPods } = this.engine
    const what = `policies: ${policies.size}; pods of this node that they select: ${selectedPods}`
    const { counts } = this.#connections
    if (counts === undefined) return what
    const { allowed, refused } = counts
    return `${what}; connections to them since the rules were made: ${allowed.ingress} let through, ${refused.ingress} refused; from them: ${allowed.egress} and ${refused.egress}`
  }

  /** What was counted up to the last thorough look. */
  tell(metrics: Exposition): void {
    const { policies, selectedPods } = this.engine
    metrics.gauge('k8s_network_policy_policies', 'Network policies of the cluster.', policies.size)
    metrics.gauge(
      'k8s_network_policy_selected_pods',
      'Pods of this node that network policies select.',
      selectedPods,
    )
    metrics.counters(
      'k8s_network_policy_connections_total',
      'Connections to (ingress) and from (egress) these pods, and whether their policies let them through.',
      this.#connections.totals(),
    )
  }

  async #work(): Promise<void> {
    let begunMs = performance.now()
    for (const _ of this.engine.work()) {
      if (performance.now() - begunMs < sliceMs) continue
      await turn()
      this.#signal.throwIfAborted()
      begunMs = performance.now()
    }
  }

  async #apply(): Promise<void> {
    const changes = this.engine.rules.takeChanges()
    if (!this.#isStale) {
      if (changes === undefined) return
      const isDone = await this.#nft(renderChanges(changes)).then(
        () => true,
        (error: unknown) => {
          this.#signal.throwIfAborted()
          this.#context.log.warn(
            { reason: describeError(error) },
            'rules of network policies could not be changed; all are written anew',
          )
          return false
        },
      )
      if (isDone) return
    }
    this.#isStale = true
    await this.#mark()
    await this.#nft(renderAll(this.engine.rules, this.#head)).catch(async (error: unknown) => {
      if (errorCode(error) === 'SPAWN_FAILED') await this.#tellOfAll('has no program nft')
      throw error
    })
    this.#connections.remade()
    this.#isStale = false
  }

  /** Whoever removes the rules has to know that there are some. A full disk is no reason not to enforce them. */
  async #mark(): Promise<void> {
    const { paths, log } = this.#context
    if (existsSync(paths.policyMark)) return
    await writeFileAtomically(paths.policyMark, '', { mode: publicMode, durable: 'nothing' }).catch(
      (error: unknown) =>
        log.warn({ reason: describeError(error) }, 'cannot note that rules of network policies are there'),
    )
  }

  /** Whether all is there, and how much has passed. */
  async #look(): Promise<void> {
    await this.#readRanges()
    if (this.#isStale) return
    const isThorough = this.#looks++ % looksBetweenThoroughOnes === 0
    const read = (args: string) => this.#run([args], this.#signal).catch(() => '')
    const areWhole = isThorough
      ? isWhole((await Promise.all(look.rules.map(read))).join('\n'), this.#head)
      : isThere(await read(look.chains))
    if (isThorough) this.#connections.read(readCounts(await read(look.counters)))
    this.#signal.throwIfAborted()
    if (areWhole) return
    this.#isStale = true
    this.#context.log.warn('the rules of network policies were gone, and are there again')
  }

  get #head(): Head {
    return { families: this.#families, ranges: this.#ranges ?? [] }
  }

  /** Those of this node's pods, once its Node has them. */
  async #readRanges(): Promise<void> {
    if (this.#ranges !== undefined) return
    const node = await readNode(this.#context, this.#signal).catch(() => undefined)
    this.#signal.throwIfAborted()
    const { podCIDR, podCIDRs = podCIDR === undefined ? [] : [podCIDR] } = node?.spec ?? {}
    const ranges = podCIDRs.flatMap((text) => parseRange(text) ?? [])
    if (ranges.length === 0) return
    this.#ranges = ranges.filter(({ first }) => this.#families.includes(first.family)).map(formatRange)
    this.#isStale = true
  }

  /** Of pods that the API server, which is away, has not told of. */
  async #letThrough(isAway: boolean): Promise<void> {
    if (!isAway) {
      // They are nobody's again.
      if (this.#strangers.size > 0) this.#isStale = true
      this.#strangers.clear()
      return
    }
    const strangers = [...this.#addresses].filter((address) => this.engine.isStranger(address))
    for (const family of this.#families) {
      const added = strangers.filter(
        (address) => familyOf(address) === family && !this.#strangers.has(address),
      )
      if (added.length > 0) await this.#nft(renderKnown(added, family))
      for (const address of added) this.#strangers.add(address)
    }
  }

  #assertBridge(): void {
    if (!this.#files.exists('/proc/sys/net/bridge'))
      throw new AppError('pods of this node are not kept apart: br_netfilter is not loaded', {
        code: 'BR_NETFILTER',
        remedy: 'modprobe br_netfilter',
      })
    applySysctls(bridgeSettings(bridgeName), { root: this.#files.path('/') })
  }

  /** Tells at once of new pods; where it cannot, the looks do. */
  #watchRuntime(): void {
    if (this.#directory !== undefined) return
    try {
      this.#directory = watchDirectory(this.#files.path(cniResultsDir), { persistent: false }, () => {
        this.#isRuntimeRead = false
        this.#wakeup.wake()
      })
      this.#directory.on('error', () => (this.#directory = undefined))
    } catch {
      // It comes with the first pod.
    }
  }

  #readRuntime(isDue: boolean): void {
    if (this.#isRuntimeRead && !isDue) return
    this.#isRuntimeRead = this.#directory !== undefined
    const runtime = this.#runtime.read()
    this.#addresses = new Set(runtime.keys())
    this.engine.setRuntime(runtime)
  }

  async #tellProblems(): Promise<void> {
    const problems = [...this.engine.problems()]
    if (!this.#files.exists(sctpSysctl))
      for (const [key, policy] of this.engine.policies)
        if (policy.namesSctp)
          problems.push([
            key,
            'the kernel does not follow SCTP: between two pods, what one port of SCTP is let through is let through at all',
          ])
    await this.#tell(problems)
  }

  async #tellOfAll(what: string): Promise<void> {
    const reason = `the node ${this.#context.config.nodeName} ${what}: no policy is enforced there`
    await this.#tell([...this.engine.policies.keys()].map((key) => [key, reason] as const))
  }

  async #tell(problems: readonly (readonly [key: string, reason: string])[]): Promise<void> {
    const told = problems.map(([key, reason]) => ({ key, reason, kind: 'NotEnforced' }))
    await this.#events.tell(told, this.engine.policies, this.#signal)
  }

  async #nft(text: string): Promise<void> {
    await this.#run(['-f', '-'], this.#signal, text)
  }
}

async function runNft(args: readonly string[], signal: AbortSignal, input?: string): Promise<string> {
  const { stdout } = await runCommand({
    ...{ command: 'nft', args, env: { PATH: hostPath }, timeoutMs: commandTimeoutMs, signal },
    ...(input !== undefined && { input }),
  })
  return stdout
}

/** Takes all rules out of the kernel. */
export async function removeRules(
  { paths, log }: Pick<NodeTaskContext, 'paths' | 'log'>,
  signal: AbortSignal,
): Promise<void> {
  await runNft([removal], signal)
  await rm(paths.policyMark, { force: true })
  log.info('the rules of network policies are removed')
}
