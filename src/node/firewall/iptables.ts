import type { Firewall, RunRules } from './firewall.ts'
import { forwardChain } from './forward-chain.ts'

/** Begins like the chains of CNI's plugins, as `k8s reset` knows them (reset/firewall-rules.ts). */
const masqueradeChain = 'CNI-K8S-MASQ'

export function iptables(clusterCidr: string): Firewall {
  const isIPv6 = clusterCidr.includes(':')
  const command = isIPv6 ? 'ip6tables' : 'iptables'
  const multicast = isIPv6 ? 'ff00::/8' : '224.0.0.0/4'
  const jump = `POSTROUTING -s ${clusterCidr} -j ${masqueradeChain}`
  const write = async (
    run: RunRules,
    { table, chain, jump: to }: { table: string; chain: string; jump: string },
  ): Promise<void> => {
    // A chain that is named is emptied.
    await run(`${command}-restore`, ['--noflush', '-w'], chain)
    const change = (action: string) => run(command, ['-w', '-t', table, action, ...to.split(' ')])
    await change('-C').catch(() => change('-A'))
  }
  return {
    async read({ run, thorough }) {
      // kube-proxy itself looks for chains that were deleted, every half a minute.
      if (!thorough) return undefined
      const list = (table: string, chain: string) =>
        // Of a chain that is not there nothing is listed.
        run(command, ['-w', '-t', table, '-S', chain]).catch(() => '')
      const [nat, forward, letThrough, masquerade, ports] = await Promise.all([
        Promise.all([list('nat', 'PREROUTING'), list('nat', 'POSTROUTING')]).then((parts) =>
          parts.join('\n'),
        ),
        list('filter', 'FORWARD'),
        list('filter', forwardChain),
        list('nat', masqueradeChain),
        list('nat', 'CNI-HOSTPORT-DNAT'),
      ])
      // Each container has a chain of its own, which a flush between portmap's steps leaves empty.
      const chains = [...ports.matchAll(/^.* id: \W*(\w+).* -j (CNI-DN-\S+)$/gm)]
      const mapped = await Promise.all(
        chains.map(async ([, containerId = '', chain = '']) =>
          (await list('nat', chain)).includes('-j DNAT') ? containerId : '',
        ),
      )
      return {
        forwarding:
          !forward.includes('-P FORWARD DROP') ||
          (forward.includes(`-j ${forwardChain}`) && letThrough.includes('-j ACCEPT')),
        masquerade: nat.includes(`-A ${jump}`) && masquerade.includes('-j MASQUERADE'),
        services:
          ['KUBE-SERVICES', 'KUBE-POSTROUTING'].every((chain) => nat.includes(`-j ${chain}`)) &&
          forward.includes('-j KUBE-FORWARD'),
        hasPorts: (containerId) => nat.includes('-j CNI-HOSTPORT-DNAT') && mapped.includes(containerId),
      }
    },
    async writeForwarding(run) {
      const chain = `*filter
:${forwardChain} - [0:0]
-A ${forwardChain} -s ${clusterCidr} -j ACCEPT
-A ${forwardChain} -d ${clusterCidr} -j ACCEPT
COMMIT
`
      await write(run, { table: 'filter', chain, jump: `FORWARD -j ${forwardChain}` })
    },
    async writeMasquerade(run) {
      const chain = `*nat
:${masqueradeChain} - [0:0]
-A ${masqueradeChain} -d ${clusterCidr} -j RETURN
-A ${masqueradeChain} -d ${multicast} -j RETURN
-A ${masqueradeChain} -j MASQUERADE
COMMIT
`
      await write(run, { table: 'nat', chain, jump })
    },
  }
}
