/*
 * Who may have the certificate of a Node. Kubernetes approves the renewals of kubelets by itself; what is left is decided
 * here, and nothing else than these two:
 *
 *    a bootstrapper asks to become a Node        if nobody else is, or was promised to be, the Node of that name
 *    a Node asks for its kubelet's server        if user, group, name and addresses are its own
 *
 * kube-apiserver has found out who asks. What they ask for is theirs to write, and so are the addresses that a kubelet
 * reports of its Node: those of servers, of Services and of other Nodes are nobody's but theirs, whatever it reports.
 */
import {
  contains,
  isLoopback,
  isMulticast,
  isUnspecified,
  parseAddress,
  type Range,
} from '../../base/address.ts'
import { AppError } from '../../base/errors.ts'
import { bootstrappersGroup, nodesGroup } from '../../addons/joining.ts'
import { isNodeName } from '../../config/table/kubernetes-names.ts'
import { type CertificateRequest, readCertificateRequest } from '../../pki/certificate-request.ts'

export const signers = {
  client: 'kubernetes.io/kube-apiserver-client-kubelet',
  serving: 'kubernetes.io/kubelet-serving',
} as const

/** A CertificateSigningRequest, as far as it matters here. */
export interface Asked {
  readonly signer: string
  readonly username: string
  readonly groups: readonly string[]
  readonly usages: readonly string[]
  /** PEM. */
  readonly request: string
}

/** What belongs to servers, and is no agent's. */
export interface Reserved {
  /** Of the API servers and their Nodes, in lower case. */
  readonly names: ReadonlySet<string>
  readonly addresses: ReadonlySet<string>
  readonly serviceRanges: readonly Range[]
  readonly clusterDomain: string
}

/** What is known of the cluster's Nodes. */
export interface Known {
  readonly reserved: Reserved
  /** The addresses of each Node that there is, by its name. */
  readonly nodes: ReadonlyMap<string, readonly string[]>
  /** The keys that were approved for names whose Nodes have not come yet. */
  readonly promised: ReadonlyMap<string, string>
}

/** How many Nodes may be promised and not come: who has a token could else ask for names without end. */
export const promisesLimit = 1000

export type Verdict =
  | { readonly kind: 'approve'; readonly nodeName: string; readonly keyHash: string }
  /** `reason` is one word, as conditions have it. */
  | { readonly kind: 'deny'; readonly reason: string; readonly message: string }
  /** As `deny`, unless it will be true soon. */
  | { readonly kind: 'wait'; readonly reason: string; readonly message: string }
  /** It is for somebody else to decide. */
  | { readonly kind: 'leave' }

/** Pure. */
export function verdictOn(asked: Asked, known: Known): Verdict {
  const judge = judgeOf(asked)
  if (judge === undefined) return { kind: 'leave' }
  try {
    return judge(asked, readCertificateRequest(asked.request), known)
  } catch (error) {
    if (error instanceof AppError && error.code === 'CERTIFICATE_REQUEST')
      return deny('Malformed', error.message)
    throw error
  }
}

/** By who asks whom: it costs nothing to see that a request is not for us. */
export function isOurs(asked: Pick<Asked, 'signer' | 'username' | 'groups'>): boolean {
  return judgeOf(asked) !== undefined
}

type Judge = (asked: Asked, request: CertificateRequest, known: Known) => Verdict

const nodeUser = 'system:node:'

function judgeOf({
  signer,
  username,
  groups,
}: Pick<Asked, 'signer' | 'username' | 'groups'>): Judge | undefined {
  if (signer === signers.client && groups.includes(bootstrappersGroup)) return judgeClient
  if (signer === signers.serving && username.startsWith(nodeUser) && groups.includes(nodesGroup))
    return judgeServing
  return undefined
}

function judgeClient(asked: Asked, request: CertificateRequest, known: Known): Verdict {
  const nodeName = nodeOf(request)
  if (nodeName === undefined) return deny('Subject', `the subject is not that of a Node: ${subjectForm}`)
  if (request.names.length + request.addresses.length > 0)
    return deny('AlternativeNames', 'a client has no DNS names and addresses')
  if (!hasUsages(asked.usages, 'client auth'))
    return deny('Usages', usagesMessage(asked.usages, 'client auth'))
  if (isReservedName(nodeName, known.reserved)) {
    return deny(
      'NameReserved',
      `the name ${nodeName} is that of a server or a Service; give this machine another name`,
    )
  }
  const promised = known.promised.get(nodeName)
  if (promised === request.keyHash) return { kind: 'approve', nodeName, keyHash: request.keyHash }
  if (known.nodes.has(nodeName)) {
    return deny(
      'NameInUse',
      `the name ${nodeName} is in use by a Node; give this machine another name, or remove that Node first (k8s node remove ${nodeName})`,
    )
  }
  if (promised !== undefined) {
    return deny(
      'NameInUse',
      `the name ${nodeName} is in use: another key was approved for it, whose Node has not come yet; give this machine another name, or, if that key is lost, forget it (${forget(nodeName)})`,
    )
  }
  if (known.promised.size >= promisesLimit) {
    return deny(
      'TooMany',
      `${promisesLimit} Nodes were approved and have not come; take the token back (k8s token delete), and forget those that will not come (kubectl ${inPromises('edit')})`,
    )
  }
  return { kind: 'approve', nodeName, keyHash: request.keyHash }
}

/** Where the keys of promised names are kept. */
export const promisesName = 'kube-system/k8s-promised-nodes'

function forget(nodeName: string): string {
  return `kubectl ${inPromises('patch')} --type=json -p '[{"op":"remove","path":"/data/${nodeName}"}]'`
}

function inPromises(verb: string): string {
  const [namespace, name] = promisesName.split('/')
  return `-n ${namespace} ${verb} configmap ${name}`
}

function judgeServing(asked: Asked, request: CertificateRequest, known: Known): Verdict {
  const nodeName = nodeOf(request)
  if (nodeName === undefined) return deny('Subject', `the subject is not that of a Node: ${subjectForm}`)
  if (asked.username !== nodeUser + nodeName)
    return deny('Subject', `the Node ${nodeName} is not the one that asks, which is ${asked.username}`)
  if (!hasUsages(asked.usages, 'server auth'))
    return deny('Usages', usagesMessage(asked.usages, 'server auth'))
  if (request.names.length + request.addresses.length === 0)
    return deny('AlternativeNames', 'a server has a DNS name or an address')
  if (isReservedName(nodeName, known.reserved))
    return deny('NameReserved', `the name ${nodeName} is that of a server`)
  const foreignName = request.names.find((name) => name !== nodeName)
  if (foreignName !== undefined)
    return deny('AlternativeNames', `the DNS name ${foreignName} is not that of the Node, ${nodeName}`)
  for (const address of request.addresses) {
    const owner = ownerOf(address, nodeName, known)
    if (owner !== undefined) return deny('AlternativeNames', `the address ${address} is ${owner}`)
  }
  const own = known.nodes.get(nodeName)
  if (own === undefined) return wait('NoNode', `there is no Node ${nodeName}`)
  const unknown = request.addresses.find((address) => !own.includes(address))
  if (unknown !== undefined)
    return wait(
      'AlternativeNames',
      `the address ${unknown} is not one of the Node ${nodeName}, which has ${own.join(', ')}`,
    )
  return { kind: 'approve', nodeName, keyHash: request.keyHash }
}

const subjectForm = `CN=${nodeUser}NAME, with a name that a Node can have, and O=${nodesGroup} alone`

function nodeOf({ commonName, organizations }: CertificateRequest): string | undefined {
  const nodeName = commonName.startsWith(nodeUser) ? commonName.slice(nodeUser.length) : ''
  return organizations.join() === nodesGroup && organizations.length === 1 && isNodeName(nodeName)
    ? nodeName
    : undefined
}

/** pkg/apis/certificates/v1/helpers.go: kubelets with an RSA key encipher keys with it, and others do not. */
function hasUsages(usages: readonly string[], usage: 'client auth' | 'server auth'): boolean {
  const allowed = ['digital signature', 'key encipherment', usage]
  return (
    usages.includes('digital signature') &&
    usages.includes(usage) &&
    usages.every((one) => allowed.includes(one))
  )
}

function usagesMessage(usages: readonly string[], usage: string): string {
  return `the usages are ${usages.slice(0, 10).join(', ').slice(0, 200)}; allowed are digital signature, key encipherment and ${usage}`
}

/** The API server's names, and those of Services, stand below the same authority. */
function isReservedName(name: string, { names, clusterDomain }: Reserved): boolean {
  return names.has(name) || name.endsWith('.svc') || `.${name}`.endsWith(`.${clusterDomain.toLowerCase()}`)
}

/** Whose address it is, as the end of "is"; undefined: that of no other that is known. */
function ownerOf(text: string, nodeName: string, { reserved, nodes }: Known): string | undefined {
  const address = parseAddress(text)
  if (address === undefined || isLoopback(address) || isUnspecified(address) || isMulticast(address))
    return 'no address of one Node'
  if (reserved.serviceRanges.some((range) => contains(range, address))) return 'in the range of Services'
  if (reserved.addresses.has(text)) return "an API server's"
  for (const [name, addresses] of nodes) {
    if (name !== nodeName && addresses.includes(text)) return `that of the Node ${name}`
  }
  return undefined
}

function deny(reason: string, message: string): Verdict {
  return { kind: 'deny', reason, message }
}

function wait(reason: string, message: string): Verdict {
  return { kind: 'wait', reason, message }
}
