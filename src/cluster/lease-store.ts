import { AppError } from '../base/errors.ts'
import { firstAnswer } from '../base/first-answer.ts'
import { request } from '../base/http.ts'
import type { ComponentContext } from '../components/component.ts'
import { apiserverUrl } from '../components/probe.ts'
import { readIdentity } from '../pki/pki.ts'
import type { HeldLease, LeaseStore } from './lease-election.ts'

const path = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases'
/** Two of them have to fit into the time in which a lease is to be renewed. */
const answerLimitMs = 5_000

interface Lease {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly spec?: {
    readonly holderIdentity?: string
    readonly leaseDurationSeconds?: number
    readonly leaseTransitions?: number
  }
}

/** Leases of kube-system: their holder is the name of a server's Node. */
const names = {
  /** Who leads. */
  server: 'k8s-server',
  /** Who joins. */
  joining: 'k8s-joining-server',
} as const

interface LeaseStoreOptions extends Pick<ComponentContext, 'pki' | 'credentials'> {
  readonly lease: keyof typeof names
  /** https://HOST:PORT of API servers; the first that answers is spoken to. */
  readonly servers: readonly string[]
}

/** That of who leads, in the API of this server. */
export function leadersLease(context: Pick<ComponentContext, 'config' | 'pki' | 'credentials'>): LeaseStore {
  return leaseStore({ ...context, lease: 'server', servers: [apiserverUrl(context.config)] })
}

/** A Lease of the servers. */
export function leaseStore({ lease: which, servers, pki, credentials }: LeaseStoreOptions): LeaseStore {
  const name = names[which]
  const ask = async (
    asked: { method?: 'GET' | 'POST' | 'PUT'; url: string; body?: string },
    signal: AbortSignal,
  ) => {
    await credentials
    const tls = { ...(await readIdentity(pki, 'admin-client')), checkedAs: '127.0.0.1' }
    const send = (server: string) =>
      request({
        ...asked,
        url: `${server}${asked.url}`,
        headers: { 'content-type': 'application/json', accept: 'application/json' },
        ...{ tls, timeoutMs: answerLimitMs, signal },
      })
    const { status, body } = await firstAnswer(servers, send, 'no server is known')
    if (status === 404 && asked.method === undefined) return undefined
    if (status < 300) return heldLease(JSON.parse(body) as Lease)
    throw new AppError(`the API answers ${status} for the Lease ${name}`, { code: 'LEASE_REQUEST', status })
  }
  const write = async (method: 'POST' | 'PUT', lease: Partial<HeldLease>, signal: AbortSignal) => {
    const url = method === 'POST' ? path : `${path}/${name}`
    const written = await ask({ method, url, body: JSON.stringify(manifest(name, lease)) }, signal)
    if (written === undefined) throw new Error('bug: a lease that was written is not there')
    return written
  }
  return {
    get: (signal) => ask({ url: `${path}/${name}` }, signal),
    create: (lease, signal) => write('POST', lease, signal),
    replace: (lease, signal) => write('PUT', lease, signal),
  }
}

function heldLease({ metadata, spec }: Lease): HeldLease {
  return {
    holder: spec?.holderIdentity ?? '',
    leaseMs: (spec?.leaseDurationSeconds ?? 0) * 1000,
    transitions: spec?.leaseTransitions ?? 0,
    version: metadata?.resourceVersion ?? '',
  }
}

/** Without a version it is made. */
function manifest(
  name: string,
  { holder = '', leaseMs = 0, transitions = 0, version }: Partial<HeldLease>,
): object {
  // MicroTime has six digits.
  const now = new Date().toISOString().replace('Z', '000Z')
  return {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace: 'kube-system', ...(version !== undefined && { resourceVersion: version }) },
    spec: {
      holderIdentity: holder,
      leaseDurationSeconds: Math.max(1, Math.round(leaseMs / 1000)),
      leaseTransitions: transitions,
      renewTime: now,
    },
  }
}
