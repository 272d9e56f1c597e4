import type { HostFacts } from '../facts/host.ts'
import { masqueradeTable, policyTable } from '../firewall/nftables.ts'
import type { ResetStep } from './steps.ts'

/** Tables of kube-proxy (pkg/proxy/nftables), of the CNI plugins portmap and bridge (until pods were masqueraded by the daemon), and ours. */
const nftTables = [
  'ip kube-proxy',
  'ip6 kube-proxy',
  'ip cni_hostport',
  'ip6 cni_hostport',
  'inet cni_plugins_masquerade',
  `ip ${masqueradeTable}`,
  `ip6 ${masqueradeTable}`,
  `inet ${policyTable}`,
] as const

/** Both kinds: the cluster may have run in the other mode before. */
export function ruleSteps({ command, kernel }: HostFacts): ResetStep[] {
  const steps: ResetStep[] = []
  if (command('nft') !== undefined && kernel.feature('nftables') !== 'absent') {
    steps.push(
      ...nftTables.map((table) => ({
        kind: 'command' as const,
        description: `delete the nftables table ${table}`,
        command: 'nft',
        // Added first, as a table that is not there cannot be deleted before nft 1.0.8 (destroy).
        args: [`add table ${table}; delete table ${table}`],
      })),
    )
  }
  for (const tool of ['iptables', 'ip6tables']) {
    if (command(`${tool}-save`) === undefined || command(`${tool}-restore`) === undefined) continue
    const description = `take the chains KUBE-* and CNI-* out of ${tool}`
    steps.push({ kind: 'rules', description, save: `${tool}-save`, restore: `${tool}-restore` })
  }
  return steps
}

/**
 * The output of iptables-save without the chains of Kubernetes and CNI and the rules that lead to
 * them; undefined when there are none, so that nothing need be restored.
 */
export function keepForeignRules(saved: string): string | undefined {
  const lines = saved.split('\n')
  const foreign = lines.filter((line) => !/(^:|\s)(KUBE|CNI)-/.test(line))
  return foreign.length === lines.length ? undefined : foreign.join('\n')
}
