import {
  CertificatesV1Api,
  CoordinationV1Api,
  CoreV1Api,
  type KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  type V1CertificateSigningRequest,
  type V1ConfigMap,
  type V1Node,
  type V1PersistentVolume,
} from '@kubernetes/client-node'
import { AppError, isStatus } from '../base/errors.ts'
import { apiserverAddresses, ask, connect, find } from './connection.ts'
import { type DrainOptions, drainNode } from './drain.ts'

export interface RemoveOptions extends Omit<DrainOptions, 'ignoreDaemonsets'> {
  /** The Node of the machine that asks, which is a server. */
  readonly ownNode: string | undefined
  /** Where names are written that nobody may register again without a token, and those that are kept for keys. */
  readonly removed: ConfigMapName
  readonly promised: ConfigMapName
}

export interface RemovedNode {
  /** Before, so that nothing was left to do but what had been interrupted. */
  readonly wasRemoved: boolean
  /** Its API server serves. */
  readonly isServer: boolean
}

interface ConfigMapName {
  readonly namespace: string
  readonly name: string
}

/** Of the names that are kept; the oldest are forgotten. */
const removedLimit = 1000
/** Of the volumes that are named. */
const shownLimit = 10
const mergePatch = setHeaderOptions('Content-Type', PatchStrategy.MergePatch)

/**
 * Takes a Node out of the cluster for good, with all that the cluster keeps of it; drained before, unless it is not Ready or `force` says so.
 * Repeatable: goes on where it was interrupted. Throws NODE_UNKNOWN, LAST_SERVER, and what `drainNode`
 * throws.
 */
export async function removeNode(
  kubeconfig: string,
  name: string,
  options: RemoveOptions,
): Promise<RemovedNode> {
  const { print, dryRun, force, removed, promised } = options
  const config = connect(kubeconfig)
  const api = config.makeApiClient(CoreV1Api)
  const node = await find(`read the Node ${name}`, () => api.readNode({ name }))
  let isServer = false
  if (node !== undefined) {
    isServer = await requireOthers(config, node, options)
    if (force) print(`${name} is not drained, since --force says so.`)
    else if (!isReady(node))
      print(`${name} is not Ready, so that it is not drained: its pods are deleted with it.`)
    else await drainNode(kubeconfig, name, { ...options, ignoreDaemonsets: true })
    const { items } = await ask('list the volumes', () => api.listPersistentVolume())
    const volumes = items.filter((volume) => isBoundTo(volume, node)).map(describeVolume)
    if (volumes.length > 0) {
      const rest = volumes.length > shownLimit ? ` and ${volumes.length - shownLimit} more` : ''
      print(
        `The data of ${volumes.slice(0, shownLimit).join(', ')}${rest} are on ${name} alone: no pod can use them any more, until these claims are deleted and made anew.`,
      )
    }
    if (dryRun) {
      print(`${name} would be removed.`)
      return { wasRemoved: false, isServer }
    }
    // Before it goes: its kubelet may start at any moment.
    await note(api, name, removed)
    const { uid } = node.metadata ?? {}
    const preconditions = uid === undefined ? {} : { preconditions: { uid } }
    await find(`delete the Node ${name}`, () => api.deleteNode({ name, body: preconditions }))
  } else if (
    (await readMap(api, removed))?.data?.[name] === undefined &&
    !(await isKept(api, name, promised))
  ) {
    throw new AppError(`cannot remove ${name}: there is no Node of that name, and nothing is kept of one`, {
      code: 'NODE_UNKNOWN',
      remedy: 'see "k8s kubectl get nodes"',
    })
  }
  if (!dryRun) await forget(config, name, promised)
  return { wasRemoved: node === undefined, isServer }
}

/** A machine of this name may register itself again. */
export async function forgetRemoval(kubeconfig: string, name: string, removed: ConfigMapName): Promise<void> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  if ((await readMap(api, removed))?.data?.[name] !== undefined) await patch(api, removed, { [name]: null })
}

/** Whether it is that of a server. Throws LAST_SERVER. */
async function requireOthers(
  config: KubeConfig,
  { metadata, status }: V1Node,
  { ownNode }: Pick<RemoveOptions, 'ownNode'>,
): Promise<boolean> {
  const name = metadata?.name ?? ''
  const own = (status?.addresses ?? []).map(({ address }) => address)
  const { addresses } = await apiserverAddresses(config)
  const others = addresses.filter((address) => !own.includes(address))
  // Behind another address than its Node's, perhaps.
  const isOwnAlone = name === ownNode && addresses.length === 1
  if (others.length > 0 && !isOwnAlone) return others.length < addresses.length || name === ownNode
  throw new AppError(`cannot remove ${name}: it is the last server of the cluster`, {
    code: 'LAST_SERVER',
    remedy: 'k8s reset, on that machine, ends the cluster',
  })
}

/** Whether pods can use it on that Node alone. */
function isBoundTo({ spec }: V1PersistentVolume, { metadata }: V1Node): boolean {
  const terms = spec?.nodeAffinity?.required?.nodeSelectorTerms ?? []
  const hostname = metadata?.labels?.['kubernetes.io/hostname'] ?? metadata?.name ?? ''
  return (
    terms.length > 0 &&
    terms.every(({ matchExpressions = [] }) =>
      matchExpressions.some(
        ({ key, operator, values = [] }) =>
          key === 'kubernetes.io/hostname' &&
          operator === 'In' &&
          values.length === 1 &&
          values[0] === hostname,
      ),
    )
  )
}

/** The claim tells more than the volume's name. */
function describeVolume({ metadata, spec }: V1PersistentVolume): string {
  const { namespace, name } = spec?.claimRef ?? {}
  return name === undefined ? (metadata?.name ?? '') : `${namespace}/${name}`
}

function isReady({ status }: V1Node): boolean {
  return status?.conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True') === true
}

async function note(api: CoreV1Api, name: string, removed: ConfigMapName): Promise<void> {
  if ((await readMap(api, removed)) === undefined) {
    const { namespace } = removed
    try {
      await ask('create the list of removed Nodes', () =>
        api.createNamespacedConfigMap({ namespace, body: { metadata: removed } }),
      )
    } catch (error) {
      if (!isStatus(error, 409)) throw error
    }
  }
  const { data = {} } = await patch(api, removed, { [name]: new Date().toISOString() })
  const oldest = Object.entries(data)
    .toSorted(([, one], [, other]) => one.localeCompare(other))
    .slice(0, Math.max(0, Object.keys(data).length - removedLimit))
  if (oldest.length > 0) await patch(api, removed, Object.fromEntries(oldest.map(([key]) => [key, null])))
}

/** What the cluster keeps of the name beside its Node. */
async function forget(config: KubeConfig, name: string, promised: ConfigMapName): Promise<void> {
  const api = config.makeApiClient(CoreV1Api)
  if (await isKept(api, name, promised)) await patch(api, promised, { [name]: null })
  const leases = { name, namespace: 'kube-node-lease' }
  await find(`delete the Lease of ${name}`, () =>
    config.makeApiClient(CoordinationV1Api).deleteNamespacedLease(leases),
  )
  const certificates = config.makeApiClient(CertificatesV1Api)
  const { items } = await ask('list the requests for certificates', () =>
    certificates.listCertificateSigningRequest(),
  )
  for (const { metadata } of items.filter((request) => isPendingOf(request, name))) {
    const request = { name: metadata?.name ?? '' }
    await find(`delete the request ${request.name}`, () =>
      certificates.deleteCertificateSigningRequest(request),
    )
  }
}

const nodeUser = 'system:node:'

/** Pure. */
export function isPendingOf({ spec, status }: V1CertificateSigningRequest, nodeName: string): boolean {
  if ((status?.conditions ?? []).length > 0) return false
  const user = nodeUser + nodeName
  if (spec.username === user) return true
  // The subject of a request is in it as it is, after its length: a PrintableString or UTF8String of DER.
  const length =
    user.length < 0x80
      ? [user.length]
      : user.length < 0x100
        ? [0x81, user.length]
        : [0x82, user.length >> 8, user.length & 0xff]
  const pem = Buffer.from(spec.request, 'base64').toString('latin1')
  const der = Buffer.from(pem.replaceAll(/-----[^-]*-----|\s/g, ''), 'base64')
  return [0x0c, 0x13].some((tag) => der.includes(Buffer.from([tag, ...length, ...Buffer.from(user)])))
}

async function isKept(api: CoreV1Api, name: string, promised: ConfigMapName): Promise<boolean> {
  return (await readMap(api, promised))?.data?.[name] !== undefined
}

function readMap(api: CoreV1Api, where: ConfigMapName): Promise<V1ConfigMap | undefined> {
  return find(`read ${where.namespace}/${where.name}`, () => api.readNamespacedConfigMap(where))
}

function patch(
  api: CoreV1Api,
  where: ConfigMapName,
  data: Readonly<Record<string, string | null>>,
): Promise<V1ConfigMap> {
  return ask(`write ${where.namespace}/${where.name}`, () =>
    api.patchNamespacedConfigMap({ ...where, body: { data } }, mergePatch),
  )
}
