import { readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { coredns } from '../addons/coredns.ts'
import { dnsPods, probeDns } from '../addons/dns.ts'
import { joining } from '../addons/joining.ts'
import { localStorage, storageProblem } from '../addons/local-storage.ts'
import {
  isOfOthers,
  metricsApi,
  metricsProblem,
  metricsServer,
  servesMetrics,
} from '../addons/metrics-server.ts'
import { publishedServer } from '../addons/published-server.ts'
import { kubeletAccess } from '../addons/rbac.ts'
import type { Api } from '../api/client.ts'
import type { Manifest } from '../api/objects.ts'
import { formatAddress, ofFamilies } from '../base/address.ts'
import { describeError } from '../base/errors.ts'
import type { Capability } from '../components/component.ts'
import { tenthAddress } from '../config/conflicts.ts'
import { routeSource } from '../node/facts/node-address.ts'
import { renderSharedKubeletConfig } from '../node/render/kubelet-config.ts'
import { apiserverKubeletUser } from '../pki/leaves.ts'
import { MetricsCertificate } from './metrics-certificate.ts'
import type { TaskContext } from './tasks/task.ts'

/** Of what is asked within one pass. */
export interface Asking {
  readonly api: Api
  readonly signal: AbortSignal
}

/** An add-on that the daemon keeps applied. */
export interface KeptAddon {
  readonly name: string
  /** The value of --disable that leaves it out; undefined: nothing does. */
  readonly disabledBy?: TaskContext['config']['disable'][number]
  /** It is applied when these are there. */
  readonly needs: readonly Capability[]
  /** What `k8s status` says of it until then; undefined: it has no row until then. */
  readonly waitsFor?: string
  /** No cluster without an inventory of its add-ons has it. */
  readonly isSinceInventory?: true
  /** Whether `k8s status --wait` waits for it. */
  readonly isAwaited: boolean
  /** Of one that is held only the names count: nothing need be asked for, as the start goes on meanwhile. */
  readonly manifests: (asking: Asking & { isHeld: boolean }) => Promise<readonly Manifest[]>
  /** Why it does not work though it is applied; undefined: it does. */
  readonly problem?: (asking: Asking) => Promise<string | undefined>
}

/** Without its image a pod would wait for the next try of a pull that cannot work. */
const needsOfPods: Pick<KeptAddon, 'needs' | 'waitsFor'> = {
  needs: ['node', 'images'],
  waitsFor: 'it waits for the Node and its image',
}

/** In the order in which they are applied. A new add-on of ours is a row here. */
export function keptAddons(context: TaskContext): readonly KeptAddon[] {
  return [access(), dns(context), joiners(context), volumes(context), metrics(context)]
}

/** What the API server needs to reach kubelets: `logs` and `exec` work with it. */
function access(): KeptAddon {
  return {
    name: 'kubelet-access',
    needs: [],
    isAwaited: true,
    manifests: async () => kubeletAccess({ user: apiserverKubeletUser }),
  }
}

const dnsTries = 3

function dns(context: TaskContext): KeptAddon {
  const { config, payload, host } = context
  const { clusterDns, clusterDomain, serviceCidr } = config
  const [, otherRange] = ofFamilies(serviceCidr)
  return {
    name: 'coredns',
    disabledBy: 'coredns',
    ...needsOfPods,
    isAwaited: true,
    manifests: async () =>
      coredns({
        image: payload.version.images.coredns,
        clusterDns,
        otherClusterDns: otherRange && formatAddress(tenthAddress(otherRange)),
        clusterDomain,
        forward: host.resolvConf.kind === 'host' || host.resolvConf.hasServer,
      }),
    problem: (asking) => dnsProblem(context, asking),
  }
}

/** undefined: it answers. Where somebody else's proxy leads to Services, its pods are for him to look at. */
async function dnsProblem(context: TaskContext, asking: Asking): Promise<string | undefined> {
  const { config, board } = context
  if (config.disable.includes('kube-proxy')) return undefined
  // One datagram may be lost without anything being wrong.
  const tries = board.part('coredns')?.state === 'ready' ? dnsTries : 1
  let problem: string | undefined
  for (let done = 0; done < tries; done++) {
    problem = await askDns(context, asking).then(() => undefined, describeError)
    if (problem === undefined) return undefined
  }
  return problem
}

/** Pods find Services by their own default route; a machine that has none itself, without a network, asks a pod of DNS. */
async function askDns({ config }: TaskContext, { api }: Asking): Promise<void> {
  const { clusterDns, clusterDomain } = config
  if ((await routeSource(clusterDns)) !== undefined) return probeDns({ server: clusterDns, clusterDomain })
  const [server] = await dnsPods(api)
  if (server === undefined) throw new Error('none of its pods is ready')
  await probeDns({ server, clusterDomain })
}

/** What machines find when they join: nothing before the first one may. */
function joiners(context: TaskContext): KeptAddon {
  return {
    name: 'joiners',
    needs: ['joiners'],
    isAwaited: true,
    manifests: (asking) => forJoiners(context, asking),
  }
}

async function forJoiners(context: TaskContext, asking: Asking): Promise<readonly Manifest[]> {
  const { config, pki, payload, addresses } = context
  const { clusterCidr, serviceCidr, clusterDns, clusterDomain, httpsListenPort, networkBackend } = config
  const { server, client } = pki.authorities
  const { advertiseAddress } = addresses()
  const authorities = await Promise.all([server, client].map(({ certFile }) => readFile(certFile, 'utf8')))
  const own = `https://${isIPv6(advertiseAddress) ? `[${advertiseAddress}]` : advertiseAddress}:${httpsListenPort}`
  return joining({
    // Of several servers any may be the one that publishes it.
    server: config.serverMode === 'single' ? own : await publishedServer(asking.api, own),
    authorities,
    kubernetesVersion: payload.version.k8sVersion,
    ...{ clusterCidr, serviceCidr, clusterDomain, networkBackend },
    networkPolicy: !config.disable.includes('network-policy'),
    kubeletConfig: renderSharedKubeletConfig({ clusterDns, clusterDomain }),
  })
}

function volumes({ config, payload }: TaskContext): KeptAddon {
  const { 'local-path-provisioner': image, volume: helperImage } = payload.version.images
  return {
    name: 'local-storage',
    disabledBy: 'local-storage',
    isSinceInventory: true,
    ...needsOfPods,
    // Claims wait for it by themselves.
    isAwaited: false,
    manifests: async () => localStorage({ image, helperImage, path: config.localStoragePath }),
    problem: ({ api }) => storageProblem(api),
  }
}

function metrics({ payload, pki }: TaskContext): KeptAddon {
  const keyPair = new MetricsCertificate(pki.dir)
  return {
    name: 'metrics-server',
    disabledBy: 'metrics-server',
    isSinceInventory: true,
    ...needsOfPods,
    // It has figures when it has looked twice.
    isAwaited: false,
    manifests: async ({ api, isHeld }) => {
      const image = payload.version.images['metrics-server']
      if (isHeld)
        return [...metricsServer({ image, certificate: '', key: '' }), ...metricsApi({ authority: '' })]
      if (await isOfOthers(api)) return []
      const { certificate, key, authority } = await keyPair.current(api)
      const group = (await servesMetrics(api)) ? metricsApi({ authority }) : []
      return [...metricsServer({ image, certificate, key }), ...group]
    },
    problem: ({ api }) => metricsProblem(api),
  }
}
