import { randomInt } from 'node:crypto'
import type { Api, Row } from '../../api/client.ts'
import { parseAddress, formatAddress } from '../../base/address.ts'
import type { Logger } from '../../base/logger.ts'
import { type Promises, readPromises, writePromises } from './promises.ts'
import { takeBack } from './removed-nodes.ts'
import { type Asked, isOurs, type Known, type Reserved, signers, type Verdict, verdictOn } from './verdict.ts'

export const requestsPath = '/apis/certificates.k8s.io/v1/certificatesigningrequests'

/** How long a Node may take to report what its kubelet asks for: it asks as soon as it knows of it itself. */
const waitLimitMs = 20_000
/** Of one pass; the others come with the next one, which follows at once. */
const passLimit = 100
/** Of what bootstrappers have asked for and did not get: Kubernetes keeps it for hours, and it may be large and many. */
const refusedLimit = 500
/** What Kubernetes calls who shows a token, before its ID. */
const bootstrapUser = 'system:bootstrap:'
const reporter = 'k8s-approver'

interface Condition {
  readonly type: string
  readonly status: string
  readonly reason: string
  readonly message: string
}

interface SigningRequest {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly spec: {
    readonly request: string
    readonly signerName: string
    readonly username?: string
    readonly groups?: readonly string[]
    readonly usages?: readonly string[]
  }
  readonly status?: { readonly conditions?: readonly Condition[]; readonly [key: string]: unknown }
}

interface NodeObject {
  readonly metadata: { readonly name: string }
  readonly status?: { readonly addresses?: readonly { readonly address: string }[] }
}

interface PassOptions {
  readonly api: Api
  /** Of this server. */
  readonly reserved: Reserved
  readonly log: Logger
}

/** What is left to do after a pass. */
export interface PassResult {
  readonly resourceVersion: string
  /** Some wait for what no change of theirs will tell. */
  readonly isWaiting: boolean
}

/** Decides on the requests that are for nobody else to decide; the rules are verdict.ts'. */
export class Approver {
  /** When a request that waits was first seen, by its uid, ms. */
  readonly #waiting = new Map<string, number>()

  /** Reads nothing but the requests' names where none is to be decided. Repeatable. */
  async pass({ api, reserved, log }: PassOptions): Promise<PassResult> {
    const { rows, resourceVersion } = await api.rows(requestsPath)
    const pending = rows.filter(mayBeOurs)
    const isWaiting = pending.length > 0 && (await this.#decideOn(someOf(pending), { api, reserved, log }))
    if (!isWaiting) this.#waiting.clear()
    await removeSurplus(api, rows, log)
    return { resourceVersion, isWaiting: isWaiting || pending.length > passLimit }
  }

  /** Whether some of them wait. */
  async #decideOn(pending: readonly Row[], { api, reserved, log }: PassOptions): Promise<boolean> {
    const requests = await readRequests(api, pending)
    const known = await knownOf(api, reserved)
    await forgetThoseWhoCame(api, known)
    const waiting = new Set<string>()
    const failures: unknown[] = []
    for (const request of requests) {
      const verdict = this.#patient(
        request,
        verdictOn(askedOf(request), { ...known, promised: known.promises.names }),
        waiting,
      )
      // One that cannot be answered holds up no other.
      await decide({ api, known, request, verdict, log }).catch((error: unknown) => failures.push(error))
    }
    for (const uid of this.#waiting.keys()) if (!waiting.has(uid)) this.#waiting.delete(uid)
    if (failures.length > 0) throw failures[0]
    return waiting.size > 0
  }

  /** What waits for too long is denied. */
  #patient({ metadata: { uid } }: SigningRequest, verdict: Verdict, waiting: Set<string>): Verdict {
    if (verdict.kind !== 'wait') return verdict
    const since = this.#waiting.get(uid) ?? performance.now()
    this.#waiting.set(uid, since)
    waiting.add(uid)
    return performance.now() - since < waitLimitMs ? verdict : { ...verdict, kind: 'deny' }
  }
}

/** The columns are those that `kubectl get csr` prints (pkg/printers/internalversion). */
function mayBeOurs({ SignerName: signer = '', Requestor: requestor = '', Condition: condition }: Row) {
  const isBootstrapper = signer === signers.client && requestor.startsWith(bootstrapUser)
  const isNode = signer === signers.serving && requestor.startsWith('system:node:')
  return condition === 'Pending' && (isBootstrapper || isNode)
}

async function readRequests(api: Api, rows: readonly Row[]): Promise<SigningRequest[]> {
  const requests: SigningRequest[] = []
  for (const { Name: name = '' } of rows) {
    const request = await api.get<SigningRequest>(`${requestsPath}/${encodeURIComponent(name)}`)
    if (request !== undefined && isUndecided(request) && isOurs(askedOf(request))) requests.push(request)
  }
  return requests
}

/** By chance, where there are many: nobody can have others wait by the names that he gives to his. */
function someOf(rows: readonly Row[]): Row[] {
  const left = [...rows]
  while (left.length > passLimit) left.splice(randomInt(left.length), 1)
  return left
}

/** Who floods the cluster with requests has those removed that were not approved. */
async function removeSurplus(api: Api, rows: readonly Row[], log: Logger): Promise<void> {
  const refused = rows.filter((row) => {
    const { Requestor: requestor = '', Condition: condition = '' } = row
    return requestor.startsWith(bootstrapUser) && !condition.startsWith('Approved') && !mayBeOurs(row)
  })
  const surplus = refused.length - refusedLimit
  if (surplus <= 0) return
  log.warn(
    { requests: refused.length, limit: refusedLimit },
    'removed requests of bootstrappers, as there are too many',
  )
  for (let count = 0; count < surplus; count++) {
    const [{ Name: name = '' } = {}] = refused.splice(randomInt(refused.length), 1)
    await api.remove(`${requestsPath}/${encodeURIComponent(name)}`)
  }
}

function isUndecided({ status }: SigningRequest): boolean {
  return (status?.conditions ?? []).length === 0
}

function askedOf({ spec }: SigningRequest): Asked {
  return {
    signer: spec.signerName,
    username: spec.username ?? '',
    groups: spec.groups ?? [],
    usages: spec.usages ?? [],
    request: Buffer.from(spec.request, 'base64').toString('latin1'),
  }
}

interface Working extends Omit<Known, 'promised'> {
  promises: Promises
}

async function knownOf(api: Api, reserved: Reserved): Promise<Working> {
  const [nodes, servers, promises] = await Promise.all([
    api.list<NodeObject>('/api/v1/nodes'),
    apiservers(api),
    readPromises(api),
  ])
  return {
    reserved: { ...reserved, addresses: new Set([...reserved.addresses, ...servers]) },
    nodes: new Map(
      nodes.items.map(({ metadata, status }) => [metadata.name, addressesOf(status?.addresses)]),
    ),
    promises,
  }
}

interface Slice {
  readonly endpoints?: readonly { readonly addresses?: readonly string[] }[] | null
}

/** At which addresses the Service `kubernetes` finds the API servers, this one's among them. */
async function apiservers(api: Api): Promise<string[]> {
  const path =
    '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes'
  const { items } = await api.list<Slice>(path)
  const endpoints = items.flatMap((slice) => slice.endpoints ?? [])
  return endpoints.flatMap(({ addresses = [] }) => addresses.map(shortest))
}

function addressesOf(given: readonly { readonly address: string }[] = []): string[] {
  return given.map(({ address }) => shortest(address))
}

/** As requests have them. */
function shortest(text: string): string {
  const address = parseAddress(text)
  return address === undefined ? text : formatAddress(address)
}

async function decide(given: {
  api: Api
  known: Working
  request: SigningRequest
  verdict: Verdict
  log: Logger
}): Promise<void> {
  const { api, known, request, verdict, log } = given
  const { username = '' } = request.spec
  const name = request.metadata.name
  if (verdict.kind === 'deny') {
    const { reason, message } = verdict
    if (!(await answer(api, request, { type: 'Denied', reason, message }))) return
    log.warn({ request: name, username, reason: message }, 'denied a certificate')
    await tell(api, request, { reason, message })
    return
  }
  if (verdict.kind !== 'approve') return
  const { nodeName } = verdict
  // Whoever is promised a name is written down before it is told: two servers, or a crash, promise it to nobody else.
  if (request.spec.signerName === signers.client) {
    if (!(await promise(api, known, verdict)) || !(await takeBack(api, nodeName))) return
  }
  const message = `k8s has looked at the name ${nodeName} and who asks`
  if (!(await answer(api, request, { type: 'Approved', reason: 'AutoApproved', message }))) return
  log.info({ request: name, username, node: nodeName }, 'approved a certificate')
}

/** Whether the name is kept for the key by now. */
async function promise(
  api: Api,
  known: Working,
  { nodeName, keyHash }: { nodeName: string; keyHash: string },
): Promise<boolean> {
  const { names } = known.promises
  if (names.get(nodeName) === keyHash) return true
  return keepPromises(api, known, new Map([...names, [nodeName, keyHash]]))
}

/** Nodes that have come are no promises any more: one that is deleted makes its name free. */
async function forgetThoseWhoCame(api: Api, known: Working): Promise<void> {
  const { names } = known.promises
  const left = new Map([...names].filter(([name]) => !known.nodes.has(name)))
  if (left.size < names.size) await keepPromises(api, known, left)
}

/** Whether it was written; not, when another server was faster. */
async function keepPromises(api: Api, known: Working, names: ReadonlyMap<string, string>): Promise<boolean> {
  if (!(await writePromises(api, { ...known.promises, names }))) return false
  known.promises = await readPromises(api)
  return true
}

/** Whether it was taken: not when somebody else was faster, with which the next pass begins anew. */
async function answer(
  api: Api,
  request: SigningRequest,
  condition: Pick<Condition, 'type' | 'reason' | 'message'>,
): Promise<boolean> {
  const conditions = [...(request.status?.conditions ?? []), { ...condition, status: 'True' }]
  const path = `${requestsPath}/${encodeURIComponent(request.metadata.name)}/approval`
  const taken = await api.replace(path, { ...request, status: { ...request.status, conditions } })
  return taken !== undefined
}

/** `kubectl describe csr` shows no conditions, and events. */
async function tell(
  api: Api,
  { metadata: { name, uid } }: SigningRequest,
  { reason, message }: { reason: string; message: string },
): Promise<void> {
  const now = new Date().toISOString().replace(/\.\d+/, '')
  await api.create('/api/v1/namespaces/default/events', {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `denied-${uid}`, namespace: 'default' },
    involvedObject: { apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', name, uid },
    ...{ reason, message: message.slice(0, 1000), type: 'Warning', count: 1 },
    source: { component: reporter },
    ...{ firstTimestamp: now, lastTimestamp: now },
  })
}
