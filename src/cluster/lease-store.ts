import { AppError } from '../base/errors.ts'
import { request } from '../base/http.ts'
import type { ComponentContext } from '../components/component.ts'
import { apiserverUrl } from '../components/probe.ts'
import { readIdentity } from '../pki/pki.ts'
import type { HeldLease, LeaseStore } from './lease-election.ts'

/** The Lease kube-system/k8s-server: its holder is the name of a server's Node. */
const name = 'k8s-server'
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

/** The Lease of the servers in the API of this one. */
export function leaseStore({
  config,
  pki,
  credentials,
}: Pick<ComponentContext, 'config' | 'pki' | 'credentials'>): LeaseStore {
  const ask = async (
    asked: { method?: 'GET' | 'POST' | 'PUT'; url: string; body?: string },
    signal: AbortSignal,
  ) => {
    await credentials
    const { status, body } = await request({
      ...asked,
      url: `${apiserverUrl(config)}${asked.url}`,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      tls: await readIdentity(pki, 'admin-client'),
      timeoutMs: answerLimitMs,
      signal,
    })
    if (status === 404 && asked.method === undefined) return undefined
    if (status < 300) return heldLease(JSON.parse(body) as Lease)
    throw new AppError(`the API answers ${status} for the Lease ${name}`, { code: 'LEASE_REQUEST', status })
  }
  const write = async (method: 'POST' | 'PUT', lease: Partial<HeldLease>, signal: AbortSignal) => {
    const url = method === 'POST' ? path : `${path}/${name}`
    const written = await ask({ method, url, body: JSON.stringify(manifest(lease)) }, signal)
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
function manifest({ holder = '', leaseMs = 0, transitions = 0, version }: Partial<HeldLease>): object {
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
