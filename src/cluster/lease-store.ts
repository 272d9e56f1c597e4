import { type Api, type ApiAccess, openApi } from '../api/client.ts'
import { firstAnswer } from '../base/first-answer.ts'
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

interface LeaseStoreOptions {
  readonly lease: keyof typeof names
  /** Of API servers; the first that answers is spoken to. */
  readonly servers: readonly ApiAccess[]
}

/** A Lease of the servers. */
export function leaseStore({ lease: which, servers }: LeaseStoreOptions): LeaseStore {
  const name = names[which]
  const ask = (signal: AbortSignal, send: (api: Api) => Promise<Lease | undefined>) =>
    firstAnswer(
      servers,
      async (access) => {
        using api = await openApi(access, signal, answerLimitMs)
        return await send(api)
      },
      'no server is known',
    )
  const write = async (signal: AbortSignal, send: (api: Api) => Promise<Lease | undefined>) => {
    const written = await ask(signal, send)
    if (written === undefined) throw new Error(`somebody else has written the Lease ${name}`)
    return heldLease(written)
  }
  return {
    async get(signal) {
      const found = await ask(signal, (api) => api.get<Lease>(`${path}/${name}`))
      return found && heldLease(found)
    },
    create: (lease, signal) => write(signal, (api) => api.create<Lease>(path, manifest(name, lease))),
    replace: (lease, signal) =>
      write(signal, (api) => api.replace<Lease>(`${path}/${name}`, manifest(name, lease))),
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
