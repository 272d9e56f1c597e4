import { readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { coredns } from '../../addons/coredns.ts'
import { dnsPods, probeDns } from '../../addons/dns.ts'
import { joining } from '../../addons/joining.ts'
import type { Addon } from '../../addons/manifest.ts'
import { ObjectClient } from '../../addons/objects.ts'
import { publishedServer } from '../../addons/published-server.ts'
import { localStorage } from '../../addons/local-storage.ts'
import { kubeletAccess } from '../../addons/rbac.ts'
import { Reconciler } from '../../addons/reconcile.ts'
import { formatAddress, ofFamilies } from '../../base/address.ts'
import { describeError, errorCode } from '../../base/errors.ts'
import type { Capability } from '../../components/component.ts'
import { apiserverUrl } from '../../components/probe.ts'
import { tenthAddress } from '../../config/conflicts.ts'
import { apiserverKubeletUser } from '../../pki/leaves.ts'
import { renderSharedKubeletConfig } from '../../node/render/kubelet-config.ts'
import { routeSource } from '../../node/facts/node-address.ts'
import { readIdentity } from '../../pki/pki.ts'
import type { Task, TaskContext } from './task.ts'

/** Between two passes when all is applied: what somebody changed or deleted is back after that. */
const calmIntervalMs = 30_000
/** While something is missing. */
const shortestIntervalMs = 250
const longestIntervalMs = 10_000
/** An add-on that does not work after so long is a problem, and not on its way any more. */
const pendingLimitMs = 120_000
const dnsTries = 3

/** Keeps the add-ons applied, and takes away those that are not wanted any more. */
export const addons: Task<TaskContext> = {
  name: 'addons',
  purpose: 'keep the add-ons',
  leaderOnly: true,
  async run(context, signal) {
    const dnsAddon = dns(context)
    const storageAddon = volumes(context)
    const accessAddon = access()
    const isDnsWanted = !context.config.disable.includes('coredns')
    if (isDnsWanted)
      context.board.report({ name: dnsAddon.name, state: 'pending', message: 'not applied yet' })
    await context.whenReady('api')
    const reconciler = new Reconciler()
    let wake = Promise.withResolvers<void>()
    let isDnsHeld = true
    // Without its image a pod would wait for the next try of a pull that cannot work.
    whenThere(context, ['node', 'images'], () => {
      isDnsHeld = false
      wake.resolve()
    })
    let isJoiningHeld = true
    whenThere(context, ['joiners'], () => {
      isJoiningHeld = false
      wake.resolve()
    })
    const begunMs = performance.now()
    for (let intervalMs = shortestIntervalMs; ; ) {
      const joiningAddon = await forJoiners(context, signal)
      const known = [accessAddon, dnsAddon, joiningAddon, storageAddon]
      const wanted = known.filter(({ name }) => !(context.config.disable as readonly string[]).includes(name))
      const held = [...(isDnsHeld ? [dnsAddon, storageAddon] : []), ...(isJoiningHeld ? [joiningAddon] : [])]
      const [wasDnsHeld, wasJoiningHeld] = [isDnsHeld, isJoiningHeld]
      wake = Promise.withResolvers()
      const problems = await pass({ reconciler, context, wanted, held, known, signal })
      signal.throwIfAborted()
      if (problems === undefined) {
        // kube-apiserver has a row of its own for that; what is applied is as well as it was.
        await sleep(intervalMs, undefined, { signal, ref: false })
        continue
      }
      if (wasDnsHeld) problems.set(dnsAddon.name, 'it waits for the Node and its image')
      else if (isDnsWanted && !problems.has(dnsAddon.name)) {
        const silent = await dnsProblem(context, signal)
        if (silent !== undefined) problems.set(dnsAddon.name, silent)
      }
      const shown = wanted.filter((addon) => !wasJoiningHeld || addon !== joiningAddon)
      report({ context, wanted: shown, problems, isLate: performance.now() - begunMs > pendingLimitMs })
      const isCalm = problems.size === 0
      intervalMs = isCalm ? calmIntervalMs : Math.min(intervalMs * 1.2, longestIntervalMs)
      await Promise.race([sleep(intervalMs, undefined, { signal, ref: false }), wake.promise])
      if (isCalm || wasDnsHeld) intervalMs = shortestIntervalMs
    }
  },
}

/** Calls `then` when all is there; never where some of it will not be. */
function whenThere(context: TaskContext, capabilities: readonly Capability[], then: () => void): void {
  void Promise.all(capabilities.map((capability) => context.whenReady(capability))).then(then, () => {})
}

/** undefined: the API server does not answer. */
async function pass({
  reconciler,
  context,
  signal,
  ...addons
}: {
  reconciler: Reconciler
  context: TaskContext
  wanted: readonly Addon[]
  held: readonly Addon[]
  known: readonly Addon[]
  signal: AbortSignal
}): Promise<Map<string, string> | undefined> {
  const { log } = context
  try {
    // One handshake for a pass, with the identity as it is by now.
    using client = await clientOf(context, signal)
    return new Map(await reconciler.pass({ ...addons, client, log }))
  } catch (error) {
    const reason = describeError(error)
    // It serves, and refuses what has to come before all objects.
    if (errorCode(error) === 'ADDON_REQUEST' && context.isReady('kube-apiserver'))
      return new Map(addons.wanted.map(({ name }) => [name, reason]))
    log.debug({ reason }, 'cannot look at the add-ons')
    return undefined
  }
}

function report(found: {
  context: TaskContext
  wanted: readonly Addon[]
  problems: ReadonlyMap<string, string>
  isLate: boolean
}): void {
  const { context, wanted, problems, isLate } = found
  const { board } = context
  for (const { name } of wanted) {
    const message = problems.get(name)
    const former = board.part(name)
    if (message === undefined) {
      board.report({ name, state: 'ready' })
      if (former?.state === 'degraded') context.log.info({ addon: name }, 'works again')
      continue
    }
    const isOnItsWay = !isLate && (former === undefined || former.state === 'pending')
    board.report({ name, state: isOnItsWay ? 'pending' : 'degraded', message })
    if (!isOnItsWay && former?.message !== message)
      context.log.error({ addon: name, reason: message }, 'not well')
  }
}

/** undefined: it answers. Where somebody else's proxy leads to Services, its pods are for him to look at. */
async function dnsProblem(context: TaskContext, signal: AbortSignal): Promise<string | undefined> {
  const { config, board } = context
  if (config.disable.includes('kube-proxy')) return undefined
  // One datagram may be lost without anything being wrong.
  const tries = board.part('coredns')?.state === 'ready' ? dnsTries : 1
  let problem: string | undefined
  for (let done = 0; done < tries; done++) {
    problem = await askDns(context, signal).then(() => undefined, describeError)
    if (problem === undefined) return undefined
  }
  return problem
}

/** Pods find Services by their own default route; a machine that has none itself, without a network, asks a pod of DNS. */
async function askDns(context: TaskContext, signal: AbortSignal): Promise<void> {
  const { clusterDns, clusterDomain } = context.config
  if ((await routeSource(clusterDns)) !== undefined) return probeDns({ server: clusterDns, clusterDomain })
  using client = await clientOf(context, signal)
  const [server] = await dnsPods(client)
  if (server === undefined) throw new Error('none of its pods is ready')
  await probeDns({ server, clusterDomain })
}

async function clientOf({ config, pki }: TaskContext, signal: AbortSignal): Promise<ObjectClient> {
  return new ObjectClient({
    server: apiserverUrl(config),
    tls: await readIdentity(pki, 'admin-client'),
    signal,
  })
}

/** What the API server needs to reach kubelets: `logs` and `exec` work with it. */
function access(): Addon {
  return {
    name: 'kubelet-access',
    manifests: kubeletAccess({ user: apiserverKubeletUser }),
  }
}

/** What machines find when they join: nothing before the first one may. */
async function forJoiners(context: TaskContext, signal: AbortSignal): Promise<Addon> {
  const { config, pki, payload, addresses } = context
  const { clusterCidr, serviceCidr, clusterDns, clusterDomain, httpsListenPort, networkBackend } = config
  const { server, client } = pki.authorities
  const { advertiseAddress } = addresses()
  const authorities = await Promise.all([server, client].map(({ certFile }) => readFile(certFile, 'utf8')))
  const own = `https://${isIPv6(advertiseAddress) ? `[${advertiseAddress}]` : advertiseAddress}:${httpsListenPort}`
  return {
    name: 'joiners',
    manifests: joining({
      server: config.serverMode === 'single' ? own : await namedBefore(context, own, signal),
      authorities,
      kubernetesVersion: payload.version.k8sVersion,
      ...{ clusterCidr, serviceCidr, clusterDomain, networkBackend },
      networkPolicy: !config.disable.includes('network-policy'),
      kubeletConfig: renderSharedKubeletConfig({ clusterDns, clusterDomain }),
    }),
  }
}

/** Of several servers any may be the one that publishes it. One that cannot ask finds out so when it writes. */
async function namedBefore(context: TaskContext, own: string, signal: AbortSignal): Promise<string> {
  try {
    using client = await clientOf(context, signal)
    return await publishedServer(client, own)
  } catch (error) {
    signal.throwIfAborted()
    context.log.debug({ reason: describeError(error) }, 'cannot read which server cluster-info names')
    return own
  }
}

function volumes({ config, payload }: TaskContext): Addon {
  const { 'local-path-provisioner': image, volume: helperImage } = payload.version.images
  return {
    name: 'local-storage',
    manifests: localStorage({ image, helperImage, path: config.localStoragePath }),
  }
}

function dns({ config, payload, host }: TaskContext): Addon {
  const { clusterDns, clusterDomain, serviceCidr } = config
  const [, otherRange] = ofFamilies(serviceCidr)
  return {
    name: 'coredns',
    manifests: coredns({
      image: payload.version.images.coredns,
      clusterDns,
      otherClusterDns: otherRange && formatAddress(tenthAddress(otherRange)),
      clusterDomain,
      forward: host.resolvConf.kind === 'host' || host.resolvConf.hasServer,
    }),
  }
}
