import { Resolver } from 'node:dns/promises'
import { isIPv6 } from 'node:net'

const answerTimeoutMs = 1_000

/** Resolves when the cluster's DNS, asked as a pod asks it, knows the API server's Service; rejects with the reason why not. */
export async function probeDns({ clusterDns, clusterDomain }: { clusterDns: string; clusterDomain: string }) {
  const resolver = new Resolver({ timeout: answerTimeoutMs, tries: 1 })
  resolver.setServers([isIPv6(clusterDns) ? `[${clusterDns}]` : clusterDns])
  const name = `kubernetes.default.svc.${clusterDomain}`
  try {
    await (isIPv6(clusterDns) ? resolver.resolve6(name) : resolver.resolve4(name))
  } catch (cause) {
    throw new Error(`no answer for ${name} at ${clusterDns}`, { cause })
  }
}
