import { Resolver } from 'node:dns/promises'
import { isIPv6 } from 'node:net'
import type { Api } from '../api/client.ts'

const answerTimeoutMs = 1_000

/** Resolves when a server of the cluster's DNS, asked as a pod asks it, knows the API server's Service; rejects with the reason why not. */
export async function probeDns({ server, clusterDomain }: { server: string; clusterDomain: string }) {
  const resolver = new Resolver({ timeout: answerTimeoutMs, tries: 1 })
  resolver.setServers([isIPv6(server) ? `[${server}]` : server])
  const name = `kubernetes.default.svc.${clusterDomain}`
  try {
    await (isIPv6(server) ? resolver.resolve6(name) : resolver.resolve4(name))
  } catch (cause) {
    throw new Error(`no answer for ${name} at ${server}`, { cause })
  }
}

/** The addresses of the pods that answer for the Service. */
export async function dnsPods(api: Api): Promise<string[]> {
  const { subsets = [] } = ((await api.get(endpoints)) ?? {}) as {
    subsets?: readonly { readonly addresses?: readonly { readonly ip: string }[] }[]
  }
  return subsets.flatMap(({ addresses = [] }) => addresses.map(({ ip }) => ip))
}

const endpoints = {
  apiVersion: 'v1',
  kind: 'Endpoints',
  metadata: { name: 'kube-dns', namespace: 'kube-system' },
} as const
