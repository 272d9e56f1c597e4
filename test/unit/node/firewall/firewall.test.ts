import { describe, expect, test } from 'vitest'
import { firewall } from '../../../../src/node/firewall/firewall.ts'

type Listing = Readonly<Record<string, string>>

/** A machine of which each listing that is not named fails, as for a table that is not there. */
function machine(listings: Listing) {
  const written: string[] = []
  const run = (command: string, args: readonly string[], input?: string): Promise<string> => {
    const line = [command, ...args].join(' ')
    if (input !== undefined || / -[CA] /.test(line))
      written.push(input === undefined ? line : `${line}\n${input}`)
    const output = input === undefined ? listings[line] : ''
    return output === undefined
      ? Promise.reject(new Error(`${line}: no such thing`))
      : Promise.resolve(output)
  }
  return { run, written }
}

const clusterCidr = '10.244.0.0/16'

describe('nftables', () => {
  const all: Listing = {
    'nft list tables ip': 'table ip kube-proxy\ntable ip cni_hostport\ntable ip k8s_masquerade\n',
    'nft list table ip k8s_masquerade':
      'table ip k8s_masquerade {\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade\n\t}\n}\n',
    'nft list chain ip kube-proxy nat-prerouting':
      'table ip kube-proxy {\n\tchain nat-prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tjump services\n\t}\n}\n',
    'nft list table ip cni_hostport':
      'table ip cni_hostport {\n\tchain hostports {\n\t\ttcp dport 8080 dnat to 10.244.0.5:80 comment "abc"\n\t}\n}\n',
  }
  const look = async (listings: Listing, thorough = true) => {
    const present = await firewall('nftables', clusterCidr).read({ run: machine(listings).run, thorough })
    return (
      present && [
        present.masquerade,
        present.services,
        ...['abc', 'def'].map((id) => present.hasPorts(id, [4])),
      ]
    )
  }

  test('finds what there is', async () => {
    expect(await look(all)).toEqual([true, true, true, false])
  })

  test('misses all after nft flush ruleset, by the names of the tables alone', async () => {
    const flushed = { 'nft list tables ip': 'table ip filter\n' }
    expect(await look(flushed, false)).toEqual([false, false, false, false])
    expect(await look(flushed)).toEqual([false, false, false, false])
  })

  test('finds tables by their whole names', async () => {
    const others = 'table ip kube-proxy-of-another\ntable ip my_cni_hostport\n'
    expect(await look({ 'nft list tables ip': others }, false)).toEqual([false, false, false, false])
  })

  test('misses the rules of tables that were emptied, when it is thorough', async () => {
    const empty = Object.fromEntries(
      Object.entries(all).map(([line, text]) => [line, text.replaceAll(/^\t\t(?!type).*\n/gm, '')]),
    )
    expect(await look(empty, false)).toEqual([true, true, true, true])
    expect(await look(empty)).toEqual([false, false, false, false])
  })

  test('does not take a table for empty that is deleted while it looks', async () => {
    const { 'nft list table ip cni_hostport': _gone, ...rest } = all
    expect(await look(rest)).toEqual([true, true, false, false])
  })

  const dropping: Listing = {
    'nft list tables ip': 'table ip filter\n',
    'nft list chain ip filter FORWARD':
      'table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n',
  }
  const forwards = async (listings: Listing) =>
    (await firewall('nftables', clusterCidr).read({ run: machine(listings).run, thorough: true }))?.forwarding

  test('finds a chain FORWARD that drops what no rule names, and rules of ours in it', async () => {
    expect(await forwards(all)).toBe(true)
    expect(await forwards(dropping)).toBe(false)
    const chain = dropping['nft list chain ip filter FORWARD'] ?? ''
    const withJump = {
      ...dropping,
      'nft list chain ip filter FORWARD': chain.replace('\t}', '\t\tcounter jump CNI-K8S-FORWARD\n\t}'),
    }
    expect(await forwards(withJump)).toBe(false)
    const letThrough =
      'table ip filter {\n\tchain CNI-K8S-FORWARD {\n\t\tip saddr 10.244.0.0/16 counter packets 0 bytes 0 accept\n\t}\n}\n'
    expect(await forwards({ ...withJump, 'nft list chain ip filter CNI-K8S-FORWARD': letThrough })).toBe(true)
  })

  test('lets through what comes from pods and goes to them, after the rules of others', async () => {
    const { run, written } = machine(dropping)
    await firewall('nftables', clusterCidr).writeForwarding(run)
    expect(written).toEqual([
      `nft -f -
add chain ip filter CNI-K8S-FORWARD
flush chain ip filter CNI-K8S-FORWARD
add rule ip filter CNI-K8S-FORWARD ip saddr 10.244.0.0/16 counter accept
add rule ip filter CNI-K8S-FORWARD ip daddr 10.244.0.0/16 counter accept
add rule ip filter FORWARD counter jump CNI-K8S-FORWARD
`,
    ])
  })

  test('masquerades what leaves the range of pods, and no multicast', async () => {
    const { run, written } = machine({})
    await firewall('nftables', clusterCidr).writeMasquerade(run)
    expect(written).toEqual([
      `nft -f -
add table ip k8s_masquerade
add chain ip k8s_masquerade postrouting { type nat hook postrouting priority 100 ; }
flush chain ip k8s_masquerade postrouting
add rule ip k8s_masquerade postrouting ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade
`,
    ])
  })

  test('speaks of IPv6 in a cluster of that', async () => {
    const { run, written } = machine({ 'nft list tables ip6': 'table ip6 k8s_masquerade\n' })
    const ipv6 = firewall('nftables', 'fd02::/56')
    expect((await ipv6.read({ run, thorough: false }))?.masquerade).toBe(true)
    await ipv6.writeMasquerade(run)
    expect(written[0]).toContain('ip6 saddr fd02::/56 ip6 daddr != { fd02::/56, ff00::/8 } masquerade')
  })
})

describe('both families', () => {
  const both = '10.244.0.0/16,fd02::/56'
  const tables = (family: string) => ({
    [`nft list tables ${family}`]: ['kube-proxy', 'cni_hostport', 'k8s_masquerade']
      .map((table) => `table ${family} ${table}\n`)
      .join(''),
  })
  const look = async (listings: Listing, families: readonly (4 | 6)[] = [4, 6]) => {
    const present = await firewall('nftables', both).read({ run: machine(listings).run, thorough: false })
    return present && [present.masquerade, present.services, present.hasPorts('abc', families)]
  }

  test('have rules of their own, and miss those of either', async () => {
    expect(await look({ ...tables('ip'), ...tables('ip6') })).toEqual([true, true, true])
    expect(await look({ ...tables('ip'), 'nft list tables ip6': '' })).toEqual([false, false, false])
    expect(await look({ 'nft list tables ip': '', ...tables('ip6') })).toEqual([false, false, false])
  })

  test('leave ports alone that are of the other one', async () => {
    expect(await look({ ...tables('ip'), 'nft list tables ip6': '' }, [4])).toEqual([false, false, true])
  })

  test('are masqueraded each, and let through where the chain FORWARD of theirs drops', async () => {
    const drops = (family: string) => ({
      [`nft list tables ${family}`]: `table ${family} filter\n`,
      [`nft list chain ${family} filter FORWARD`]: `table ${family} filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n`,
    })
    const { run, written } = machine({ 'nft list tables ip': '', ...drops('ip6') })
    const rules = firewall('nftables', both)
    expect((await rules.read({ run, thorough: true }))?.forwarding).toBe(false)
    await rules.writeForwarding(run)
    expect(written).toEqual([expect.stringContaining('ip6 saddr fd02::/56 counter accept')])
    await rules.writeMasquerade(run)
    expect(written.slice(1)).toEqual([
      expect.stringContaining('ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade'),
      expect.stringContaining('ip6 saddr fd02::/56 ip6 daddr != { fd02::/56, ff00::/8 } masquerade'),
    ])
  })

  test('are not looked at by halves', async () => {
    const { run } = machine({})
    expect(await firewall('iptables', both).read({ run, thorough: false })).toBeUndefined()
  })
})

describe('iptables', () => {
  const list = (table: string, chain: string) => `iptables -w -t ${table} -S ${chain}`
  const all: Listing = {
    [list('nat', 'PREROUTING')]:
      '-P PREROUTING ACCEPT\n-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n',
    [list('nat', 'POSTROUTING')]:
      '-P POSTROUTING ACCEPT\n-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING\n-A POSTROUTING -s 10.244.0.0/16 -j CNI-K8S-MASQ\n',
    [list('filter', 'FORWARD')]: '-P FORWARD ACCEPT\n-A FORWARD -j KUBE-FORWARD\n',
    [list('nat', 'CNI-K8S-MASQ')]: '-N CNI-K8S-MASQ\n-A CNI-K8S-MASQ -j MASQUERADE\n',
    [list('nat', 'CNI-HOSTPORT-DNAT')]:
      '-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"k8s\\" id: \\"abc\\"" -j CNI-DN-1\n',
    [list('nat', 'CNI-DN-1')]:
      '-N CNI-DN-1\n-A CNI-DN-1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.0.5:80\n',
  }
  const look = async (listings: Listing) => {
    const present = await firewall('iptables', clusterCidr).read({
      run: machine(listings).run,
      thorough: true,
    })
    return (
      present && [
        present.masquerade,
        present.services,
        ...['abc', 'def'].map((id) => present.hasPorts(id, [4])),
      ]
    )
  }

  test('finds what there is', async () => {
    expect(await look(all)).toEqual([true, true, true, false])
  })

  test('misses all that a flush took, and jumps to chains that are still there', async () => {
    expect(await look({})).toEqual([false, false, false, false])
    const { [list('nat', 'PREROUTING')]: _one, [list('nat', 'POSTROUTING')]: _two, ...chains } = all
    expect(await look(chains)).toEqual([false, false, false, false])
  })

  test('misses the ports of a container whose own chain was emptied', async () => {
    const emptied = { ...all, [list('nat', 'CNI-DN-1')]: '-N CNI-DN-1\n' }
    expect(await look(emptied)).toEqual([true, true, false, false])
  })

  test('finds a chain FORWARD that drops what no rule names, and rules of ours in it', async () => {
    const forwards = async (listings: Listing) =>
      (await firewall('iptables', clusterCidr).read({ run: machine(listings).run, thorough: true }))
        ?.forwarding
    const drops = '-P FORWARD DROP\n-A FORWARD -j KUBE-FORWARD\n'
    expect(await forwards(all)).toBe(true)
    expect(await forwards({ ...all, [list('filter', 'FORWARD')]: drops })).toBe(false)
    const withJump = { ...all, [list('filter', 'FORWARD')]: `${drops}-A FORWARD -j CNI-K8S-FORWARD\n` }
    expect(await forwards(withJump)).toBe(false)
    const letThrough = '-N CNI-K8S-FORWARD\n-A CNI-K8S-FORWARD -s 10.244.0.0/16 -j ACCEPT\n'
    expect(await forwards({ ...withJump, [list('filter', 'CNI-K8S-FORWARD')]: letThrough })).toBe(true)
  })

  test('lets through what comes from pods and goes to them, after the rules of others', async () => {
    const add = 'iptables -w -t filter -A FORWARD -j CNI-K8S-FORWARD'
    const { run, written } = machine({ [add]: '' })
    await firewall('iptables', clusterCidr).writeForwarding(run)
    expect(written).toEqual([
      `iptables-restore --noflush -w
*filter
:CNI-K8S-FORWARD - [0:0]
-A CNI-K8S-FORWARD -s 10.244.0.0/16 -j ACCEPT
-A CNI-K8S-FORWARD -d 10.244.0.0/16 -j ACCEPT
COMMIT
`,
      add.replace('-A', '-C'),
      add,
    ])
  })

  test('leaves the chains to kube-proxy between thorough looks', async () => {
    const { run } = machine({})
    expect(await firewall('iptables', clusterCidr).read({ run, thorough: false })).toBeUndefined()
  })

  test('writes the chain anew and jumps to it once', async () => {
    const check = 'iptables -w -t nat -C POSTROUTING -s 10.244.0.0/16 -j CNI-K8S-MASQ'
    const add = check.replace('-C', '-A')
    const fresh = machine({ [add]: '' })
    await firewall('iptables', clusterCidr).writeMasquerade(fresh.run)
    expect(fresh.written.map((text) => text.split('\n')[0])).toEqual([
      'iptables-restore --noflush -w',
      check,
      add,
    ])
    const known = machine({ [check]: '' })
    await firewall('iptables', clusterCidr).writeMasquerade(known.run)
    expect(known.written.map((text) => text.split('\n')[0])).toEqual(['iptables-restore --noflush -w', check])
  })
})
