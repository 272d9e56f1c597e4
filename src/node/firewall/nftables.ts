import type { Firewall, Present, RunRules } from './firewall.ts'
import { forwardChain } from './forward-chain.ts'

/** In the family of the pods. */
export const masqueradeTable = 'k8s_masquerade'
/** Of NetworkPolicy (src/network/policy), for both families. */
export const policyTable = 'k8s-network-policy'
/** pkg/proxy/nftables: the chain by which packets that come in reach its Services. */
const kubeProxyTable = 'kube-proxy'
const kubeProxyChain = 'nat-prerouting'
/** What iptables, of which Docker and ufw are users, makes of its own chains. */
const filterTable = 'filter'
/** plugins/meta/portmap: each rule has the container's id as its comment. */
const portsTable = 'cni_hostport'

export function nftables(clusterCidr: string): Firewall {
  const isIPv6 = clusterCidr.includes(':')
  const family = isIPv6 ? 'ip6' : 'ip'
  const multicast = isIPv6 ? 'ff00::/8' : '224.0.0.0/4'
  const chain = `${family} ${masqueradeTable} postrouting`
  return {
    async read({ run, thorough }) {
      const tables = await run('nft', ['list', 'tables', family])
      const has = (table: string) => new RegExp(`^table ${family} ${table}$`, 'm').test(tables)
      if (thorough) return readRules(run, family, has)
      return {
        forwarding: true,
        masquerade: has(masqueradeTable),
        services: has(kubeProxyTable),
        hasPorts: () => has(portsTable),
      }
    },
    async writeForwarding(run) {
      const own = `${family} ${filterTable} ${forwardChain}`
      const forward = `${family} ${filterTable} FORWARD`
      const jump = (await run('nft', ['list', 'chain', ...forward.split(' ')])).includes(forwardChain)
      const rules = `add chain ${own}
flush chain ${own}
add rule ${own} ${family} saddr ${clusterCidr} counter accept
add rule ${own} ${family} daddr ${clusterCidr} counter accept
${jump ? '' : `add rule ${forward} counter jump ${forwardChain}\n`}`
      await run('nft', ['-f', '-'], rules)
    },
    async writeMasquerade(run) {
      const rules = `add table ${family} ${masqueradeTable}
add chain ${chain} { type nat hook postrouting priority 100 ; }
flush chain ${chain}
add rule ${chain} ${family} saddr ${clusterCidr} ${family} daddr != { ${clusterCidr}, ${multicast} } masquerade
`
      await run('nft', ['-f', '-'], rules)
    },
  }
}

async function readRules(run: RunRules, family: string, has: (table: string) => boolean): Promise<Present> {
  const list = async (table: string, what: string) =>
    // It may have been deleted meanwhile.
    has(table) ? await run('nft', ['list', ...what.split(' ')]).catch(() => '') : ''
  const [forward, letThrough, masquerade, services, ports] = await Promise.all([
    list(filterTable, `chain ${family} ${filterTable} FORWARD`),
    list(filterTable, `chain ${family} ${filterTable} ${forwardChain}`),
    list(masqueradeTable, `table ${family} ${masqueradeTable}`),
    list(kubeProxyTable, `chain ${family} ${kubeProxyTable} ${kubeProxyChain}`),
    list(portsTable, `table ${family} ${portsTable}`),
  ])
  return {
    forwarding:
      !/\bpolicy drop;/.test(forward) ||
      (forward.includes(`jump ${forwardChain}`) && /\baccept$/m.test(letThrough)),
    masquerade: /\bmasquerade$/m.test(masquerade),
    services: /\bjump services$/m.test(services),
    hasPorts: (containerId) => ports.includes(`comment "${containerId}"`),
  }
}
