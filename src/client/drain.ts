import { setTimeout as sleep } from 'node:timers/promises'
import {
  AppsV1Api,
  CoreV1Api,
  type KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  type V1Node,
  type V1Pod,
  type V1PodList,
} from '@kubernetes/client-node'
import { AppError, isStatus } from '../base/errors.ts'
import { ask, connect, find } from './connection.ts'
import { listed, planDrain, podName, type PodRules } from './drain-plan.ts'

export interface DrainOptions extends PodRules {
  readonly disableEviction: boolean
  readonly dryRun: boolean
  /** undefined: each pod's own. */
  readonly gracePeriodSeconds: number | undefined
  /** 0: none. */
  readonly timeoutMs: number
  /** Ends it in the middle, in a state that the error tells. */
  readonly signal: AbortSignal
  readonly print: (line: string) => void
  /** Between two looks at the pods. */
  readonly intervalMs?: number
  /** As kubectl's. */
  readonly retryMs?: number
}

const pageLimit = 250
const evictionsAtOnce = 20
const defaultIntervalMs = 1000
const defaultRetryMs = 5000
const mergePatch = setHeaderOptions('Content-Type', PatchStrategy.MergePatch)

/**
 * Cordons the Node and evicts its pods, as `kubectl drain` does; resolves when they are gone. Repeatable. Throws NODE_UNKNOWN; DRAIN_REFUSED
 * before anything is changed; DRAIN_UNFINISHED, which says what is left.
 */
export async function drainNode(kubeconfig: string, name: string, options: DrainOptions): Promise<void> {
  const config = connect(kubeconfig)
  const api = config.makeApiClient(CoreV1Api)
  const node = await readNode(api, name)
  const planned = await plan(config, name, options)
  if (planned.refusals.length > 0) {
    throw new AppError(`cannot drain ${name}: ${planned.refusals.join('; ')}`, {
      code: 'DRAIN_REFUSED',
      remedy: 'nothing was changed',
    })
  }
  if (options.dryRun) {
    const { evicted, left } = planned
    for (const line of [...left, ...evicted.map((pod) => `${podName(pod)} would be evicted`)])
      options.print(line)
    return
  }
  if (node.spec?.unschedulable !== true) await setUnschedulable(api, name, true)
  options.print(`${name} takes no new pods.`)
  // What came while it still did.
  const { evicted, left } = await plan(config, name, options)
  for (const line of left) options.print(line)
  await new Drain(api, name, evicted, options).run()
  options.print(`${name} is drained.`)
}

/** Whether it was cordoned. Throws NODE_UNKNOWN. */
export async function uncordonNode(kubeconfig: string, name: string): Promise<boolean> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const { spec } = await readNode(api, name)
  if (spec?.unschedulable !== true) return false
  await setUnschedulable(api, name, null)
  return true
}

export async function readNode(api: CoreV1Api, name: string): Promise<V1Node> {
  const node = await find(`read the Node ${name}`, () => api.readNode({ name }))
  if (node !== undefined) return node
  throw new AppError(`cannot find the Node ${name}: there is none of that name`, {
    code: 'NODE_UNKNOWN',
    remedy: 'see "k8s kubectl get nodes"',
  })
}

async function setUnschedulable(api: CoreV1Api, name: string, unschedulable: true | null): Promise<void> {
  const purpose = unschedulable ? `cordon ${name}` : `uncordon ${name}`
  await ask(purpose, () => api.patchNode({ name, body: { spec: { unschedulable } } }, mergePatch))
}

async function plan(config: KubeConfig, name: string, rules: PodRules) {
  const pods = await podsOf(config.makeApiClient(CoreV1Api), name)
  const daemonSets = new Set<string>()
  const apps = config.makeApiClient(AppsV1Api)
  for (const { metadata } of pods) {
    const owner = metadata?.ownerReferences?.find(({ controller }) => controller)
    if (owner?.kind !== 'DaemonSet') continue
    const { namespace = '' } = metadata ?? {}
    const purpose = `read the DaemonSet ${namespace}/${owner.name}`
    if (await find(purpose, () => apps.readNamespacedDaemonSet({ name: owner.name, namespace })))
      daemonSets.add(`${namespace}/${owner.name}`)
  }
  return planDrain(pods, { ...rules, daemonSets })
}

async function podsOf(api: CoreV1Api, nodeName: string): Promise<V1Pod[]> {
  const pods: V1Pod[] = []
  let _continue: string | undefined
  do {
    const page = { limit: pageLimit, ...(_continue !== undefined && { _continue }) }
    const { items, metadata }: V1PodList = await ask(`list the pods of ${nodeName}`, () =>
      api.listPodForAllNamespaces({ fieldSelector: `spec.nodeName=${nodeName}`, ...page }),
    )
    pods.push(...items)
    _continue = metadata?._continue || undefined
  } while (_continue !== undefined)
  return pods
}

/** What is known of a pod that has to go. */
interface Going {
  readonly pod: V1Pod
  /** The API server has taken the eviction: it ends. */
  isAccepted: boolean
  /** When it may be tried again, ms. */
  nextMs: number
  /** What is in the way. */
  reason: string | undefined
}

/** The eviction of some pods. */
class Drain {
  readonly #api: CoreV1Api
  readonly #nodeName: string
  readonly #options: DrainOptions
  /** By uid: one of the same name that came since is another. */
  readonly #going: Map<string, Going>

  constructor(api: CoreV1Api, nodeName: string, pods: readonly V1Pod[], options: DrainOptions) {
    this.#api = api
    this.#nodeName = nodeName
    this.#options = options
    this.#going = new Map(
      pods.map((pod) => [pod.metadata?.uid ?? '', { pod, isAccepted: false, nextMs: 0, reason: undefined }]),
    )
  }

  async run(): Promise<void> {
    const { timeoutMs, signal, intervalMs = defaultIntervalMs } = this.#options
    const limit = timeoutMs === 0 ? [] : [AbortSignal.timeout(timeoutMs)]
    const over = AbortSignal.any([signal, ...limit])
    try {
      while (this.#going.size > 0) {
        await unlessOver(this.#evictDue(), over)
        await unlessOver(this.#forgetGone(), over)
        if (this.#going.size > 0) await sleep(intervalMs, undefined, { signal: over })
      }
    } catch (error) {
      if (!over.aborted) throw this.#unfinished('', error)
      throw this.#unfinished(signal.aborted ? 'it was interrupted' : `${timeoutMs / 1000} s are over`)
    }
  }

  async #evictDue(): Promise<void> {
    const due = [...this.#going.values()].filter(
      ({ isAccepted, nextMs }) => !isAccepted && nextMs <= performance.now(),
    )
    while (due.length > 0)
      await Promise.all(due.splice(0, evictionsAtOnce).map((going) => this.#evict(going)))
  }

  async #evict(going: Going): Promise<void> {
    const { print, retryMs = defaultRetryMs } = this.#options
    const name = podName(going.pod)
    try {
      await this.#request(going.pod)
      going.isAccepted = true
      going.reason = undefined
      print(`${name} ends.`)
    } catch (error) {
      // Gone, or another one of that name.
      if (isStatus(error, 404, 409)) return
      if (!isRetried(error)) throw error
      going.nextMs = performance.now() + retryMs
      const reason = String(error.fields['causes'] ?? error.message)
      if (reason !== going.reason) print(`${name} waits: ${reason}`)
      going.reason = reason
    }
  }

  #request({ metadata }: V1Pod): Promise<unknown> {
    const { name = '', namespace = '', uid } = metadata ?? {}
    const { gracePeriodSeconds, disableEviction } = this.#options
    const deleteOptions = {
      ...(gracePeriodSeconds !== undefined && { gracePeriodSeconds }),
      ...(uid !== undefined && { preconditions: { uid } }),
    }
    const purpose = `evict ${namespace}/${name}`
    if (disableEviction)
      return ask(purpose, () => this.#api.deleteNamespacedPod({ name, namespace, body: deleteOptions }))
    const body = { metadata: { name, namespace }, deleteOptions }
    return ask(purpose, () => this.#api.createNamespacedPodEviction({ name, namespace, body }))
  }

  async #forgetGone(): Promise<void> {
    const there = new Set((await podsOf(this.#api, this.#nodeName)).map(({ metadata }) => metadata?.uid))
    for (const uid of this.#going.keys()) if (!there.has(uid)) this.#going.delete(uid)
  }

  #unfinished(why: string, cause?: unknown): AppError {
    const going = [...this.#going.values()]
    const ending = going.filter(({ isAccepted }) => isAccepted).map(({ pod }) => podName(pod))
    const waiting = going
      .filter(({ isAccepted }) => !isAccepted)
      .map(({ pod, reason }) => (reason === undefined ? podName(pod) : `${podName(pod)} (${reason})`))
    const state = [
      `it stays cordoned`,
      ...(ending.length > 0 ? [`${listed(ending)} still end`] : []),
      ...(waiting.length > 0 ? [`not evicted are ${listed(waiting)}`] : []),
    ].join('; ')
    return new AppError(
      `cannot drain ${this.#nodeName}${why && `: ${why}`}; ${state}`,
      {
        code: 'DRAIN_UNFINISHED',
        remedy: `the same command goes on; k8s node uncordon ${this.#nodeName} lets it take pods again`,
      },
      cause === undefined ? {} : { cause },
    )
  }
}

/** A budget, too many requests, or a namespace that ends and takes nothing new: all that is over some time. */
function isRetried(error: unknown): error is AppError {
  const isEnding =
    isStatus(error, 403) && String(error.fields['causes'] ?? '').includes('is being terminated')
  return isEnding || isStatus(error, 429)
}

/** A request of the library takes no signal. */
function unlessOver<Value>(work: Promise<Value>, over: AbortSignal): Promise<Value> {
  work.catch(() => {})
  if (over.aborted) return Promise.reject(over.reason as Error)
  return new Promise((resolve, reject) => {
    const stop = () => reject(over.reason as Error)
    over.addEventListener('abort', stop, { once: true })
    work.then(resolve, reject).finally(() => over.removeEventListener('abort', stop))
  })
}
