/*
 * How a machine that knows nothing but a token learns whom it joins, as kubeadm does (app/discovery/token):
 *
 *    cluster-info, from whoever answers      its signature (JWS) is checked with the secret of the token
 *      └─ the authorities in it              the one of the server must have the hash in the token
 *           └─ cluster-info, over TLS        checked with that authority: must be the same
 *                └─ with the token           version, the name of the Node, kubeadm-config, kubelet-config
 *
 * Nothing is written here. Refusals are AppErrors of the code JOIN_REFUSED, or JOIN_CLOCK where the machine's clock is
 * what is wrong; of any other code is what may pass by itself, JOIN_TOKEN_UNKNOWN and JOIN_SIGNATURE soon or never.
 */
import { createHmac, timingSafeEqual, X509Certificate } from 'node:crypto'
import { AppError, describeError, errorCode } from '../../base/errors.ts'
import { type HttpResponse, request, type TlsIdentity } from '../../base/http.ts'
import { clusterSettings } from '../../config/settings/cluster.ts'
import type { ClusterSettings } from '../../config/settings/cluster.ts'
import { Refused } from '../../config/table/option.ts'
import { refusalOfSkew } from './skew.ts'
import { authorityHash, type BootstrapToken, formatBootstrapToken } from './token.ts'

/** Of any answer. The ConfigMaps have some kilobytes. */
const answerLimitBytes = 256 * 1024
const timeoutMs = 10_000
/** In cluster-info; a cluster has two or three. */
const authoritiesLimit = 16
const clusterInfoPath = '/api/v1/namespaces/kube-public/configmaps/cluster-info'

export interface FindOptions {
  /** https://HOST:PORT */
  readonly server: string
  readonly token: BootstrapToken
  /** 64 hex digits. */
  readonly caHash: string
  readonly signal: AbortSignal
  readonly now?: Date
}

export interface DiscoveryOptions extends FindOptions {
  readonly nodeName: string
  /** v1.37.1 of the kubelet. */
  readonly version: string
}

export interface Discovery {
  /** PEM. */
  readonly serverCa: string
  /** PEM: who may speak to the kubelet shows a certificate of one of these. */
  readonly clientCas: string
  readonly cluster: ClusterFacts
  /** Whom it believes from then on. */
  readonly tls: TlsIdentity
}

/** A cluster that was found to be the one of the token. */
interface Found {
  /** PEM: who is one of its servers. */
  readonly serverCa: string
  /** PEM: all that its cluster-info names. */
  readonly authorities: readonly string[]
  readonly tls: TlsIdentity
}

/** Whom the token is for. */
export async function findCluster(options: FindOptions): Promise<Found> {
  const { server, token, caHash, now = new Date() } = options
  const unchecked = await clusterInfo(options, { isUnchecked: true })
  const kubeconfig = signedBy(token, unchecked, server)
  const authorities = await authoritiesIn(kubeconfig, server)
  const serverCa = pinned(authorities, { caHash, server })
  requireValid(serverCa, now)
  const tls: TlsIdentity = { ca: serverCa, checkedAs: '127.0.0.1' }
  const checked = await clusterInfo(options, tls)
  if (checked['kubeconfig'] !== kubeconfig)
    throw refused(server, 'it says another cluster-info to who checks its certificate than to who does not')
  return { serverCa, authorities, tls }
}

export async function discover(options: DiscoveryOptions): Promise<Discovery> {
  const { serverCa, authorities, tls } = await findCluster(options)
  await requireJoinable(options, tls)
  const others = authorities.filter((certificate) => certificate !== serverCa)
  return {
    serverCa,
    clientCas: (others.length > 0 ? others : [serverCa]).join(''),
    cluster: await clusterSettingsOf(options, tls),
    tls,
  }
}

type Data = Readonly<Record<string, string>>

async function clusterInfo(options: FindOptions, tls: TlsIdentity): Promise<Data> {
  const answer = await ask(options, { path: clusterInfoPath, tls })
  const { server } = options
  if (answer.status === 200) return dataOf(answer, server)
  if ([401, 403, 404].includes(answer.status)) {
    // A server that starts knows nothing yet.
    const ready = await ask(options, { path: '/readyz', tls })
    if (ready.status !== 200)
      throw new AppError(`${server} is not ready: /readyz answers ${ready.status}`, { code: 'JOIN_ANSWER' })
    throw unknownToken(server, 'it shows its cluster-info to nobody: there is no token to join with')
  }
  throw new AppError(`${server} answers ${answer.status}`, { code: 'JOIN_ANSWER' })
}

export async function ask(
  { server, signal }: Pick<FindOptions, 'server' | 'signal'>,
  { path, tls, token }: { path: string; tls: TlsIdentity; token?: BootstrapToken },
): Promise<HttpResponse> {
  try {
    return await request({
      url: `${server}${path}`,
      tls,
      signal,
      timeoutMs,
      maxBytes: answerLimitBytes,
      ...(token && { headers: { authorization: `Bearer ${formatBootstrapToken(token)}` } }),
    })
  } catch (error) {
    throw clockTrouble(errorCode(error)) ?? tlsTrouble(server, errorCode(error)) ?? error
  }
}

export function dataOf({ body }: HttpResponse, server: string): Data {
  try {
    const { data } = JSON.parse(body) as { data?: unknown }
    if (typeof data === 'object' && data !== null) {
      const texts = Object.entries(data).filter(([, value]) => typeof value === 'string')
      return Object.fromEntries(texts) as Data
    }
  } catch {
    // Told below.
  }
  throw refused(server, 'its answer is not that of an API server')
}

/** The kubeconfig in cluster-info, if the token's secret has signed it (bootstrap-signer: token/jws). */
export function signedBy({ id, secret }: BootstrapToken, data: Data, server: string): string {
  const kubeconfig = data['kubeconfig']
  const jws = data[`jws-kubeconfig-${id}`]
  if (kubeconfig === undefined) throw refused(server, 'its cluster-info has no kubeconfig')
  if (jws === undefined) throw unknownToken(server, `it does not know the token ${id}, or that has expired`)
  const [header = '', payload, signature = '', ...rest] = jws.split('.')
  const expected = createHmac('sha256', secret)
    .update(`${header}.${Buffer.from(kubeconfig).toString('base64url')}`)
    .digest()
  const given = Buffer.from(signature, 'base64url')
  const isWhole = payload === '' && rest.length === 0 && isHeaderOf(id, header)
  if (!isWhole || given.length !== expected.length || !timingSafeEqual(given, expected))
    throw new AppError(
      `cannot join the cluster at ${server}: its cluster-info is not signed with the secret of the token ${id}`,
      {
        code: 'JOIN_SIGNATURE',
        remedy: 'look whether the token is written as it was printed; else somebody else answers there',
      },
    )
  return kubeconfig
}

function isHeaderOf(id: string, header: string): boolean {
  try {
    const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as Record<string, unknown>
    return alg === 'HS256' && kid === id
  } catch {
    return false
  }
}

async function authoritiesIn(kubeconfig: string, server: string): Promise<string[]> {
  const { parse } = await import('yaml')
  try {
    const parsed = parse(kubeconfig, { schema: 'failsafe' }) as {
      clusters: { cluster: { 'certificate-authority-data': string } }[]
    }
    const [first] = parsed.clusters
    const bundle = Buffer.from(first?.cluster['certificate-authority-data'] ?? '', 'base64').toString()
    const found = bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    if (found.length > 0 && found.length <= authoritiesLimit) {
      return found.map((pem) => new X509Certificate(pem).toString())
    }
  } catch {
    // Told below.
  }
  throw refused(server, 'the kubeconfig in its cluster-info has no authorities that can be read')
}

function pinned(
  authorities: readonly string[],
  { caHash, server }: { caHash: string; server: string },
): string {
  const found = authorities.find((certificate) => authorityHash(certificate) === caHash)
  if (found !== undefined) return found
  const hashes = authorities.map((certificate) => `sha256:${authorityHash(certificate)}`).join(', ')
  throw refused(
    server,
    `its authorities have the hashes ${hashes}, and the token is for sha256:${caHash}`,
    'it is another cluster, or another machine answers there: look at --server, and at the token',
  )
}

function requireValid(authority: string, now: Date): void {
  const { validFromDate, validToDate } = new X509Certificate(authority)
  if (now < validFromDate) throw wrongClock('CERT_NOT_YET_VALID', now)
  if (now > validToDate) throw wrongClock('CERT_HAS_EXPIRED', now)
}

function clockTrouble(code: string | undefined): AppError | undefined {
  return code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED'
    ? wrongClock(code, new Date())
    : undefined
}

function wrongClock(code: 'CERT_NOT_YET_VALID' | 'CERT_HAS_EXPIRED', now: Date): AppError {
  const what = code === 'CERT_HAS_EXPIRED' ? 'have expired' : 'are not valid yet'
  return new AppError(
    `cannot join: by the clock of this machine, ${now.toISOString()}, the certificates of the cluster ${what}`,
    { code: 'JOIN_CLOCK', remedy: 'set the clock, or start a time service' },
  )
}

/** What a TLS connection ends with that shows another authority than the one that is expected. */
const foreignCodes = [
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'CERT_SIGNATURE_FAILURE',
]

function tlsTrouble(server: string, code = ''): AppError | undefined {
  if (foreignCodes.includes(code)) {
    const remedy = 'somebody else may answer there, or stand in between'
    return refused(server, 'its certificate is not of the authority that its cluster-info names', remedy)
  }
  return code === 'ERR_TLS_CERT_ALTNAME_INVALID'
    ? refused(server, 'its certificate is not for 127.0.0.1, as those of the servers of k8s are')
    : undefined
}

/** Whether the token is good, the versions go together, and the name is free. */
async function requireJoinable(options: DiscoveryOptions, tls: TlsIdentity): Promise<void> {
  const { server, token, nodeName, version } = options
  const skew = refusalOfSkew({ kubelet: version, server: await versionOf(options, tls) })
  if (skew !== undefined) throw refused(server, skew.reason, skew.remedy)
  const path = `/api/v1/nodes/${encodeURIComponent(nodeName)}`
  const { status } = await ask(options, { path, tls, token })
  if (status !== 200) return
  throw nameInUse(server, nodeName)
}

export function nameInUse(server: string, nodeName: string): AppError {
  return refused(
    server,
    `the cluster has a Node ${nodeName} already`,
    `choose another --node-name; where that Node is gone for good, remove it first, on a server: k8s node remove ${nodeName}`,
  )
}

/** The version of Kubernetes there, which is told to who shows a token that holds. */
export async function versionOf(options: FindOptions, tls: TlsIdentity): Promise<string> {
  const { server, token } = options
  const about = await ask(options, { path: '/version', tls, token })
  if (about.status === 401)
    throw unknownToken(server, `it does not take the token ${token.id}: it has expired`)
  return gitVersionIn(about)
}

function gitVersionIn({ status, body }: HttpResponse): string {
  try {
    const { gitVersion } = JSON.parse(body) as { gitVersion?: unknown }
    if (status === 200 && typeof gitVersion === 'string') return gitVersion
  } catch {
    // Told below.
  }
  throw new AppError(`the version of the server cannot be read: it answers ${status}`, {
    code: 'JOIN_ANSWER',
  })
}

/** Without what may change. */
type ClusterFacts = Omit<ClusterSettings, 'networkBackend'>

/** What of the cluster is fixed, as kubeadm-config and kubelet-config say it. */
async function clusterSettingsOf(options: DiscoveryOptions, tls: TlsIdentity): Promise<ClusterFacts> {
  const { server, token } = options
  const read = async (name: string, key: string) => {
    const path = `/api/v1/namespaces/kube-system/configmaps/${name}`
    const answer = await ask(options, { path, tls, token })
    if (answer.status !== 200)
      throw new AppError(`${server} answers ${answer.status} when it is asked for ${name}`, {
        code: 'JOIN_ANSWER',
      })
    return plainMap(dataOf(answer, server)[key], { name, server })
  }
  const [cluster, kubelet] = await Promise.all([
    read('kubeadm-config', 'ClusterConfiguration'),
    read('kubelet-config', 'kubelet'),
  ])
  const networking = cluster['networking'] as Record<string, unknown> | undefined
  const [dns] = Array.isArray(kubelet['clusterDNS']) ? (kubelet['clusterDNS'] as unknown[]) : []
  const texts = {
    'cluster-cidr': networking?.['podSubnet'],
    'service-cidr': networking?.['serviceSubnet'],
    'cluster-dns': dns,
    'cluster-domain': networking?.['dnsDomain'],
  }
  const value = (name: keyof typeof texts): string => {
    const { kind } = clusterSettings[name]
    const text = texts[name]
    const parsed = typeof text === 'string' ? kind.parse(text) : new Refused()
    if (!(parsed instanceof Refused)) return parsed
    const shown = JSON.stringify(text)?.slice(0, 100) ?? 'nothing'
    throw refused(server, `it says ${shown} for ${name}; ${parsed.reason ?? `allowed is ${kind.allowed}`}`)
  }
  return {
    clusterCidr: value('cluster-cidr'),
    serviceCidr: value('service-cidr'),
    clusterDns: value('cluster-dns'),
    clusterDomain: value('cluster-domain'),
  }
}

async function plainMap(
  text: string | undefined,
  { name, server }: { name: string; server: string },
): Promise<Record<string, unknown>> {
  const { parse } = await import('yaml')
  try {
    const parsed: unknown = parse(text ?? '', { schema: 'failsafe' })
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return { ...parsed }
  } catch (error) {
    throw refused(server, `its ConfigMap ${name} cannot be read: ${describeError(error).slice(0, 200)}`)
  }
  throw refused(server, `its ConfigMap ${name} has not what a node is to know`)
}

export function refused(
  server: string,
  reason: string,
  remedy = 'look whether the server is one of k8s, or of kubeadm',
): AppError {
  return new AppError(`cannot join the cluster at ${server}: ${reason}`, { code: 'JOIN_REFUSED', remedy })
}

/** Signatures come some seconds after the token: whoever has just made it is not refused at once. */
export function unknownToken(server: string, reason: string): AppError {
  return new AppError(`cannot join the cluster at ${server}: ${reason}`, {
    code: 'JOIN_TOKEN_UNKNOWN',
    remedy: 'make one on a server, with k8s token create',
  })
}
