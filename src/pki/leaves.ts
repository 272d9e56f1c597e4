import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { firstOf } from '../base/address.ts'
import { addressBytes, firstAddress } from './addresses.ts'
import {
  type Authority,
  type AuthorityName,
  dayMs,
  dayOf,
  exportKey,
  type KeyPairFiles,
  validityFault,
} from './authority.ts'
import { issueCertificate, type Profile, usageOids } from './certificate.ts'

/** What the certificates depend on; a Config has all of it. */
export interface ClusterIdentity {
  readonly nodeName: string
  readonly nodeIp: string
  /** Of the other family, in a cluster of both. */
  readonly otherNodeIp?: string | undefined
  readonly advertiseAddress: string
  /** Beside 0.0.0.0 and ::, an address that clients come to. */
  readonly bindAddress: string
  readonly serviceCidr: string
  readonly clusterDomain: string
  /** DNS names and addresses that the API server's certificate has beside its own. */
  readonly tlsSan: readonly string[]
}

export const leafNames = [
  'apiserver',
  'apiserver-kubelet-client',
  'front-proxy-client',
  'controller-manager',
  'controller-manager-client',
  'scheduler',
  'scheduler-client',
  'kubelet',
  'kubelet-client',
  'kube-proxy-client',
  'admin-client',
] as const
export type LeafName = (typeof leafNames)[number]

export interface Leaf {
  readonly authority: AuthorityName
  readonly profile: Profile
}

/** Bound to system:kubelet-api-admin by an add-on: the API server need not be in system:masters. */
export const apiserverKubeletUser = 'kube-apiserver-kubelet-client'
/** The name that requests through the aggregation layer come with (--requestheader-allowed-names). */
export const frontProxyUser = 'front-proxy-client'

const leafLifeMs = 365 * dayMs
/** A third of its life before its end, so that a machine may be switched off for months. */
const renewalMs = leafLifeMs / 3

const loopback = ['127.0.0.1', '::1']

/**
 * system:masters is above RBAC: whoever is root here can mend a broken RBAC. The file never leaves root's hands; users get
 * identities of their own (kubeadm's admin.conf is made to be passed on and has been less since 1.29).
 */
export const adminLeaf: Leaf = client('k8s-admin', 'system:masters')

/** The table of certificates below the authorities. */
export function leaves(identity: ClusterIdentity): Readonly<Record<LeafName, Leaf>> {
  const own = [identity.nodeIp, identity.otherNodeIp ?? []].flat()
  const node = { commonName: `system:node:${identity.nodeName}`, organizations: ['system:nodes'] }
  return {
    apiserver: serving('kube-apiserver', apiserverNames(identity, own)),
    'apiserver-kubelet-client': client(apiserverKubeletUser),
    'front-proxy-client': { ...client(frontProxyUser), authority: 'requestHeader' },
    // Without one these two make themselves an RSA pair at every start.
    'controller-manager': serving('kube-controller-manager', ['localhost', ...loopback]),
    'controller-manager-client': client('system:kube-controller-manager'),
    scheduler: serving('kube-scheduler', ['localhost', ...loopback]),
    'scheduler-client': client('system:kube-scheduler'),
    kubelet: {
      authority: 'server',
      profile: {
        subject: node,
        usage: 'server',
        ...splitNames([identity.nodeName, 'localhost', ...own, ...loopback]),
      },
    },
    'kubelet-client': client(node.commonName, ...node.organizations),
    'kube-proxy-client': client('system:kube-proxy'),
    'admin-client': adminLeaf,
  }
}

export function leafFiles(dir: string, name: string): KeyPairFiles {
  return { certFile: join(dir, `${name}.crt`), keyFile: join(dir, `${name}.key`) }
}

/** A new key and its certificate, PEM. */
export function issueLeaf(leaf: Leaf, authority: Authority, now: Date): { certificate: string; key: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const end = Math.min(now.getTime() + leafLifeMs, authority.certificate.validToDate.getTime())
  const certificate = issueCertificate({
    profile: leaf.profile,
    publicKey,
    issuer: authority.issuer,
    // As client-go's util/cert does: a clock that is put back does not invalidate what the cluster runs on.
    notBefore: authority.certificate.validFromDate,
    notAfter: new Date(end),
  })
  return { certificate, key: exportKey(privateKey) }
}

interface Renewal {
  /** The end of "renewed because ...". */
  readonly reason: string
  /** The one that is there is good for a while, or at least for a part of what it is for. */
  readonly canWait: boolean
}

/** Why the certificate must be issued anew; undefined: it need not. */
export function renewalOf(found: {
  leaf: Leaf
  authority: Authority
  certificatePem: string | undefined
  keyPem: string | undefined
  now: Date
}): Renewal | undefined {
  const { leaf, authority, certificatePem, keyPem, now } = found
  const atOnce = (reason: string): Renewal => ({ reason, canWait: false })
  if (certificatePem === undefined || keyPem === undefined) return atOnce('it was missing')
  const certificate = readPair(certificatePem, keyPem)
  if (certificate === undefined) return atOnce('it was damaged')
  if (
    !certificate.checkIssued(authority.certificate) ||
    !certificate.verify(authority.certificate.publicKey)
  ) {
    return atOnce('its authority changed')
  }
  if (certificate.subject !== printedSubject(leaf.profile)) return atOnce('its subject changed')
  if (certificate.keyUsage?.join() !== (leaf.profile.usage && usageOids[leaf.profile.usage].join())) {
    return atOnce('its usage changed')
  }
  const fault = validityFault(certificate, now)
  if (fault !== undefined) return atOnce(fault)
  if ((certificate.subjectAltName ?? '') !== printedNames(leaf.profile))
    return { reason: 'its names changed', canWait: true }
  const end = certificate.validToDate.getTime()
  // One that ends with its authority cannot be had for longer.
  const isLast = end >= authority.certificate.validToDate.getTime()
  return end - now.getTime() < renewalMs && !isLast
    ? { reason: `it expires on ${dayOf(certificate.validToDate)}`, canWait: true }
    : undefined
}

/** undefined when either is damaged or they do not belong together. */
function readPair(certificatePem: string, keyPem: string): X509Certificate | undefined {
  try {
    const certificate = new X509Certificate(certificatePem)
    return certificate.checkPrivateKey(createPrivateKey(keyPem)) ? certificate : undefined
  } catch {
    return undefined
  }
}

function client(commonName: string, ...organizations: readonly string[]): Leaf {
  return { authority: 'client', profile: { subject: { commonName, organizations }, usage: 'client' } }
}

export function serving(commonName: string, names: readonly string[]): Leaf {
  return { authority: 'server', profile: { subject: { commonName }, usage: 'server', ...splitNames(names) } }
}

function apiserverNames(identity: ClusterIdentity, own: readonly string[]): string[] {
  const { nodeName, advertiseAddress, bindAddress, serviceCidr, clusterDomain, tlsSan } = identity
  const service = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc']
  const bound = ['0.0.0.0', '::'].includes(bindAddress) ? [] : [bindAddress]
  return [
    ...service,
    `kubernetes.default.svc.${clusterDomain}`,
    'localhost',
    nodeName,
    ...loopback,
    // The Service `kubernetes` is of the first family alone.
    firstAddress(firstOf(serviceCidr)),
    ...own,
    advertiseAddress,
    ...bound,
    ...tlsSan,
  ]
}

/** DNS names and addresses apart, each once; addresses are compared by their bytes. */
export function splitNames(mixed: readonly string[]): { names: string[]; addresses: string[] } {
  const names = new Set<string>()
  const addresses = new Map<string, string>()
  for (const entry of mixed) {
    const bytes = addressBytes(entry)
    if (bytes === undefined) names.add(entry.toLowerCase())
    else if (!addresses.has(bytes.toString('hex'))) addresses.set(bytes.toString('hex'), entry)
  }
  return { names: [...names], addresses: [...addresses.values()] }
}

/** As X509Certificate.subject prints it. */
function printedSubject({ subject }: Profile): string {
  const organizations = subject.organizations ?? []
  return [...organizations.map((organization) => `O=${organization}`), `CN=${subject.commonName}`].join('\n')
}

/** As X509Certificate.subjectAltName prints it. */
function printedNames({ names = [], addresses = [] }: Profile): string {
  return [
    ...names.map((name) => `DNS:${name}`),
    ...addresses.map((address) => `IP Address:${printedAddress(address)}`),
  ].join(', ')
}

function printedAddress(address: string): string {
  const bytes = addressBytes(address)
  if (bytes === undefined || bytes.length === 4) return address
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16))
  return groups.join(':').toUpperCase()
}
