/*
 * Gives Services of type LoadBalancer the addresses of nodes, where kube-proxy of each node then answers:
 *
 *    watch of Services ──▶ Assigner (network/load-balancer/assign.ts) ──▶ status.loadBalancer, where it differs
 *    Nodes, EndpointSlices ──┘                                       └──▶ Events on those that get nothing
 *
 * Nodes and slices are watched while there is such a Service; of slices those of the API servers, whose ports are nobody's, and those of Services
 * that only Nodes with a pod of theirs answer for.
 */
import { type Api, openApi } from '../api/client.ts'
import { keepObjects } from '../api/watch.ts'
import { ofFamilies, parseRange } from '../base/address.ts'
import { Assigner, type Assignment } from '../network/load-balancer/assign.ts'
import {
  type BalancingNode,
  isHeld,
  nodeFacts,
  type ServiceFacts,
  serviceNameLabel,
  type SliceFacts,
  sliceFacts,
  statusManager,
} from '../network/load-balancer/facts.ts'
import { reservedPorts } from '../network/load-balancer/reserved-ports.ts'
import { nodesPath } from '../network/node-watch.ts'
import { ObjectEvents } from './object-events.ts'
import type { TaskContext } from './tasks/task.ts'
import type { Wakeup } from './wakeup.ts'
import { watchAccess } from './watch-access.ts'

/** Of Services by whose names slices are asked for; with more, all slices are. */
const selectedLimit = 100
/** Of Services that are named in the status. */
const namedLimit = 3
const shownLength = 64

export type BalancerContext = Pick<TaskContext, 'access' | 'board' | 'config' | 'log'>

type Services = ReadonlyMap<string, ServiceFacts>

interface SliceWatch {
  readonly selector: string
  readonly over: AbortController
  readonly watching: Promise<void>
  /** undefined: not listed yet. */
  slices: ReadonlyMap<string, SliceFacts> | undefined
}

export class LoadBalancer {
  readonly #context: BalancerContext
  readonly #signal: AbortSignal
  readonly #wakeup: Wakeup
  readonly #over = new AbortController()
  readonly #assigner: Assigner
  readonly #events: ObjectEvents
  readonly #watching: Promise<void>
  #nodes: ReadonlyMap<string, BalancingNode> | undefined
  #slices: SliceWatch | undefined
  /** The version of each Service for which its addresses were sent: what came of it, its watch tells. */
  #sent = new Map<string, string>()

  constructor(context: BalancerContext, { wakeup, signal }: { wakeup: Wakeup; signal: AbortSignal }) {
    const { access, config } = context
    this.#context = context
    this.#wakeup = wakeup
    this.#signal = AbortSignal.any([signal, this.#over.signal])
    this.#assigner = new Assigner(reservedPorts(config))
    this.#events = new ObjectEvents(context, {
      ...{ apiVersion: 'v1', kind: 'Service', access: access.nodes },
      logged: 'a Service of type LoadBalancer gets no address',
    })
    const ranges = [...ofFamilies(config.clusterCidr), ...ofFamilies(config.serviceCidr)].flatMap(
      (text) => parseRange(text) ?? [],
    )
    this.#watching = keepObjects<BalancingNode>({
      ...watchAccess(context, {
        ...{ name: 'servicelb-nodes', what: 'the Nodes', access: access.nodes },
        ...{ wakeup, signal: this.#signal },
      }),
      path: nodesPath,
      factsOf: (object) => nodeFacts(object, ranges),
      onChange: (nodes) => {
        this.#nodes = nodes
        wakeup.wake()
      },
    })
  }

  async stop(): Promise<void> {
    this.#over.abort()
    await Promise.all([this.#watching, this.#slices?.watching])
  }

  /** Brings the addresses of all Services to what is known now; returns what the status says of them, once there is something. */
  async pass(services: Services): Promise<string | undefined> {
    this.#watchSlices(services)
    const nodes = this.#nodes
    const slices = this.#slices?.slices
    if (nodes === undefined || slices === undefined) return undefined
    const assignment = this.#assigner.assign({ services, nodes, slices })
    await this.#write(services, assignment)
    const problems = [...assignment.refused].map(([key, refusal]) => ({ key, ...refusal }))
    if (!(await this.#events.tell(problems, services, this.#signal))) this.#wakeup.wake()
    return summaryOf(services, assignment)
  }

  #watchSlices(services: Services): void {
    const local = [...services.values()].filter(({ isLocal }) => isLocal).map(({ name }) => name)
    const names = [...new Set(['kubernetes', ...local])].toSorted()
    const selector =
      names.length > selectedLimit ? serviceNameLabel : `${serviceNameLabel} in (${names.join()})`
    if (this.#slices?.selector === selector) return
    this.#slices?.over.abort()
    const over = new AbortController()
    const found: SliceWatch = {
      ...{ selector, over, slices: undefined },
      watching: keepObjects<SliceFacts>({
        ...watchAccess(this.#context, {
          ...{ name: 'servicelb-endpoints', what: 'the EndpointSlices of Services' },
          access: this.#context.access.nodes,
          ...{ wakeup: this.#wakeup, signal: AbortSignal.any([this.#signal, over.signal]) },
        }),
        path: `/apis/discovery.k8s.io/v1/endpointslices?labelSelector=${encodeURIComponent(selector)}`,
        factsOf: sliceFacts,
        onChange: (all) => {
          found.slices = all
          this.#wakeup.wake()
        },
      }),
    }
    this.#slices = found
  }

  /** One that cannot be written is in the way of no other. */
  async #write(services: Services, { addresses }: Assignment): Promise<void> {
    const due: { key: string; service: ServiceFacts; wanted: readonly string[] }[] = []
    const sent = new Map<string, string>()
    for (const [key, wanted] of addresses) {
      const service = services.get(key)
      if (service === undefined || isAsWanted(service, wanted)) continue
      if (this.#sent.get(key) === service.version) sent.set(key, service.version)
      else due.push({ key, service, wanted })
    }
    this.#sent = sent
    if (due.length === 0) return
    // A port that goes from one to another is never seen with both.
    due.sort((a, b) => a.wanted.length - b.wanted.length)
    const failures: unknown[] = []
    using api = await openApi(this.#context.access.admin, this.#signal)
    for (const { key, service, wanted } of due) {
      const isTaken = await write(api, service, wanted).catch((error: unknown) => {
        this.#signal.throwIfAborted()
        failures.push(error)
      })
      if (isTaken !== undefined) sent.set(key, service.version)
      if (isTaken === true)
        this.#context.log.info({ service: key, addresses: wanted }, 'wrote the addresses of a Service')
    }
    if (failures.length > 0) throw failures[0]
  }
}

/** Takes back what was written, and nothing else. */
export async function takeBackAddresses(
  context: BalancerContext,
  services: Services,
  signal: AbortSignal,
): Promise<void> {
  using api = await openApi(context.access.admin, signal)
  for (const [key, service] of services) {
    if (isHeld(service) && (await write(api, service, [])))
      context.log.info({ service: key }, 'took the addresses of a Service back')
  }
}

function isAsWanted({ addresses, finalizers }: ServiceFacts, wanted: readonly string[]): boolean {
  return addresses.join() === wanted.join() && finalizers === undefined
}

/** False: the Service has changed meanwhile. What is left to do after one write, its watch tells. */
async function write(
  api: Api,
  { namespace, name, uid, version, finalizers }: ServiceFacts,
  addresses: readonly string[],
): Promise<boolean> {
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/services/${encodeURIComponent(name)}`
  const metadata = { uid, resourceVersion: version }
  const send = async (to: string, changes: object) =>
    (await api.patch(`${to}?fieldManager=${statusManager}`, changes)) !== undefined
  if (finalizers !== undefined) return send(path, { metadata: { ...metadata, finalizers } })
  // Of the mode Proxy kube-proxy would think that something else answers there.
  const ingress = addresses.map((ip) => ({ ip, ipMode: 'VIP' }))
  const loadBalancer = { ingress: ingress.length > 0 ? ingress : null }
  return send(`${path}/status`, { metadata, status: { loadBalancer } })
}

function summaryOf(services: Services, { addresses, refused }: Assignment): string {
  const served = [...addresses.values()].filter(({ length }) => length > 0)
  const others = [...services].filter(([, { writtenBy }]) => writtenBy !== undefined)
  return [
    `Services: ${services.size}; with addresses of nodes: ${served.length}`,
    ...named(
      'refused',
      [...refused].map(([key, { reason }]) => `${key} (${reason})`),
    ),
    ...named(
      'left alone, as others have written their addresses',
      others.map(
        ([key, { writtenBy = '' }]) => `${key} (${JSON.stringify(writtenBy.slice(0, shownLength))})`,
      ),
    ),
  ].join('; ')
}

function named(what: string, all: readonly string[]): string[] {
  if (all.length === 0) return []
  const rest = all.length > namedLimit ? [`and ${all.length - namedLimit} more`] : []
  return [`${what}: ${[...all.slice(0, namedLimit), ...rest].join(', ')}`]
}
