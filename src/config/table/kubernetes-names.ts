import { Refused } from './option.ts'

const domainLabel = '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'
const subdomainPattern = new RegExp(`^${domainLabel}(\\.${domainLabel})*$`)
const subdomainLimit = 253
/** A node's name becomes the value of its label kubernetes.io/hostname, which holds no more. */
const nodeNameLimit = 63
const namePattern = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/

export const taintEffects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'] as const

/** RFC 1123, as Kubernetes' IsDNS1123Subdomain. */
export function isSubdomain(text: string): boolean {
  return text.length <= subdomainLimit && subdomainPattern.test(text)
}

export function isNodeName(text: string): boolean {
  return text.length <= nodeNameLimit && isSubdomain(text)
}

/** Kubernetes' IsQualifiedName: [prefix/]name. */
export function isQualifiedName(text: string): boolean {
  const slash = text.indexOf('/')
  return (slash === -1 || isSubdomain(text.slice(0, slash))) && namePattern.test(text.slice(slash + 1))
}

export function isLabelValue(text: string): boolean {
  return text === '' || namePattern.test(text)
}

/** `key=value`, with a key that a kubelet may give its own Node. */
export function parseLabel(text: string): string | Refused {
  const equals = text.indexOf('=')
  const key = text.slice(0, equals)
  if (equals === -1 || !isQualifiedName(key) || !isLabelValue(text.slice(equals + 1))) return new Refused()
  if (!isReserved(key) || isForKubelets(key)) return text
  return new Refused(
    `a kubelet must not set ${key} on its own Node; once the node is Ready, use: k8s kubectl label node NAME ${text}`,
  )
}

/** `key=value:Effect` or `key:Effect`, as kubectl taint has it. */
export function parseTaint(text: string): string | Refused {
  const [, key = '', , value = '', effect = ''] = /^([^=:]*)(=([^:]*))?:(.*)$/.exec(text) ?? []
  const isTaint =
    isQualifiedName(key) && isLabelValue(value) && taintEffects.some((allowed) => allowed === effect)
  return isTaint ? text : new Refused()
}

function isReserved(key: string): boolean {
  const prefix = key.includes('/') ? key.slice(0, key.indexOf('/')) : ''
  return ['kubernetes.io', 'k8s.io'].some((suffix) => prefix === suffix || prefix.endsWith(`.${suffix}`))
}

/** k8s.io/kubelet pkg/apis/well_known_labels.go, which the kubelet itself checks and exits. */
function isForKubelets(key: string): boolean {
  if (kubeletLabels.has(key)) return true
  const prefix = key.slice(0, key.indexOf('/'))
  return kubeletPrefixes.some((allowed) => prefix === allowed || prefix.endsWith(`.${allowed}`))
}

const kubeletPrefixes = ['kubelet.kubernetes.io', 'node.kubernetes.io']

const kubeletLabels = new Set([
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'kubernetes.io/arch',
  'topology.kubernetes.io/zone',
  'topology.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone',
  'failure-domain.beta.kubernetes.io/region',
  'beta.kubernetes.io/instance-type',
  'node.kubernetes.io/instance-type',
  'beta.kubernetes.io/os',
  'beta.kubernetes.io/arch',
])
