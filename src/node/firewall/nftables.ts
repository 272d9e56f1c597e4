import type { Firewall, Present, RunRules } from './firewall.ts'

/** In the family of the pods. */
export const masqueradeTable = 'k8s_masquerade'
/** pkg/proxy/nftables: the chain by which packets that come in reach its Services. */
const kubeProxyTable = 'kube-proxy'
const kubeProxyChain = 'nat-prerouting'
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
        masquerade: has(masqueradeTable),
        services: has(kubeProxyTable),
        hasPorts: () => has(portsTable),
      }
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
  const [masquerade, services, ports] = await Promise.all([
    list(masqueradeTable, `table ${family} ${masqueradeTable}`),
    list(kubeProxyTable, `chain ${family} ${kubeProxyTable} ${kubeProxyChain}`),
    list(portsTable, `table ${family} ${portsTable}`),
  ])
  return {
    masquerade: /\bmasquerade$/m.test(masquerade),
    services: /\bjump services$/m.test(services),
    hasPorts: (containerId) => ports.includes(`comment "${containerId}"`),
  }
}
