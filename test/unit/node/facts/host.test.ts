import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { chooseForNode } from '../../../../src/node/facts/choices.ts'
import { detectHost } from '../../../../src/node/facts/host.ts'
import { debian, hostTree, legacy } from '../host-tree.ts'

const auto = { cgroupDriver: 'auto', kubeProxyMode: 'auto' } as const

/** A directory with empty programs of these names. */
function programs(...names: string[]): string {
  const root = hostTree(Object.fromEntries(names.map((name) => [`/${name}`, ''])))
  for (const name of names) chmodSync(join(root, name), 0o755)
  return root
}

describe('a machine with systemd and cgroup v2', () => {
  test('is seen as it is', () => {
    const host = detectHost({ root: hostTree(debian), path: programs('nft') })
    expect(host.cgroups).toEqual({
      layout: 'v2',
      version: 2,
      controllers: ['cpuset', 'cpu', 'io', 'memory', 'hugetlb', 'pids', 'rdma', 'misc'],
      hierarchies: ['/sys/fs/cgroup'],
    })
    expect(host.mounts.at(-1)).toEqual({
      path: '/mnt/with blank',
      type: 'tmpfs',
      options: ['ro', 'relatime', 'rw'],
      device: '0:24',
      root: '/',
      isShared: false,
    })
    expect(host).toMatchObject({
      isSystemd: true,
      capabilities: { netAdmin: true, sysAdmin: true, sysResource: true },
      isUserNamespace: false,
      hasSwap: true,
      defaultRoute: { interface: 'eth0', mtu: 1450 },
    })
  })

  test('gets the systemd driver and nftables', () => {
    const host = detectHost({ root: hostTree(debian), path: programs('nft', 'iptables') })
    expect(chooseForNode(auto, host)).toEqual({ cgroupDriver: 'systemd', proxyMode: 'nftables' })
  })

  test('gets what its user chose', () => {
    const host = detectHost({ root: hostTree(debian), path: programs('nft') })
    const chosen = { cgroupDriver: 'cgroupfs', kubeProxyMode: 'iptables' } as const
    expect(chooseForNode(chosen, host)).toEqual({ cgroupDriver: 'cgroupfs', proxyMode: 'iptables' })
  })
})

describe('a machine with cgroup v1', () => {
  test('is seen as it is', () => {
    const host = detectHost({ root: hostTree(legacy), path: programs('iptables') })
    expect(host.cgroups).toEqual({
      layout: 'v1',
      version: 1,
      controllers: ['cpuset', 'cpu', 'cpuacct', 'memory', 'devices', 'freezer', 'pids'],
      hierarchies: ['cpu,cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'pids', 'systemd'].map(
        (name) => `/sys/fs/cgroup/${name}`,
      ),
    })
    expect(host).toMatchObject({
      isSystemd: false,
      capabilities: { sysAdmin: true, sysResource: false },
      hasSwap: false,
      defaultRoute: undefined,
      canSetConntrack: false,
    })
  })

  test('keeps the cgroupfs driver, with systemd too', () => {
    const root = hostTree({ ...legacy, '/run/systemd/system/.keep': '' })
    expect(chooseForNode(auto, detectHost({ root })).cgroupDriver).toBe('cgroupfs')
  })

  test('is hybrid with a v2 hierarchy beside the others, and still v1 for containers', () => {
    const mountinfo = `${legacy['/proc/self/mountinfo']}\n41 31 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`
    const { cgroups } = detectHost({ root: hostTree({ ...legacy, '/proc/self/mountinfo': mountinfo }) })
    expect([cgroups.layout, cgroups.version]).toEqual(['hybrid', 1])
  })

  test('is v2 where v2 was mounted over it', () => {
    const mountinfo = `${legacy['/proc/self/mountinfo']}\n41 31 0:41 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`
    const { cgroups } = detectHost({ root: hostTree({ ...legacy, '/proc/self/mountinfo': mountinfo }) })
    expect([cgroups.layout, cgroups.version]).toEqual(['v2', 2])
  })

  test('has no controllers that are not mounted', () => {
    const { cgroups } = detectHost({ root: hostTree({ '/proc/cgroups': legacy['/proc/cgroups'] ?? '' }) })
    expect(cgroups).toEqual({ layout: 'none', version: 1, controllers: [], hierarchies: [] })
  })
})

describe('kube-proxy gets', () => {
  const config = (text: string) => gzipSync(text)
  const allBuiltIn = debian['/boot/config-6.1.0-40-amd64']?.replaceAll('=m', '=y') ?? ''
  const bare = { '/proc/sys/kernel/osrelease': '6.1.0\n' }

  test.each([
    {
      what: 'a kernel with all of it built in',
      files: { ...bare, '/proc/config.gz': config(allBuiltIn) },
      mode: 'nftables',
    },
    {
      what: 'a kernel with all but one',
      files: {
        ...bare,
        '/proc/config.gz': config(
          allBuiltIn.replace('CONFIG_NFT_FIB_IPV4=y', '# CONFIG_NFT_FIB_IPV4 is not set'),
        ),
      },
      mode: 'iptables',
    },
    {
      what: 'a kernel before 5.13',
      files: { '/proc/sys/kernel/osrelease': '5.10.0-30-amd64\n', '/proc/config.gz': config(allBuiltIn) },
      mode: 'iptables',
    },
    { what: 'a kernel of which nothing is known', files: bare, mode: 'iptables' },
    {
      what: 'modules that are not installed here',
      files: { ...bare, '/proc/config.gz': config(debian['/boot/config-6.1.0-40-amd64'] ?? '') },
      mode: 'iptables',
    },
    {
      what: 'modules that are loaded all the same',
      files: {
        ...bare,
        ...Object.fromEntries(
          [
            'nf_tables',
            'nft_chain_nat',
            'nft_masq',
            'nft_ct',
            'nft_numgen',
            'nft_fib_ipv4',
            'nft_reject',
          ].map((module) => [`/sys/module/${module}/refcnt`, '1']),
        ),
      },
      mode: 'nftables',
    },
  ])('$mode with $what', ({ files, mode }) => {
    const host = detectHost({ root: hostTree(files), path: programs('nft', 'iptables') })
    expect(chooseForNode(auto, host).proxyMode).toBe(mode)
  })

  test('nftables where nothing is known and there is no iptables', () => {
    const host = detectHost({ root: hostTree(bare), path: programs('nft') })
    expect(chooseForNode(auto, host).proxyMode).toBe('nftables')
  })

  test('iptables without the program nft', () => {
    const host = detectHost({ root: hostTree(debian), path: programs('iptables') })
    expect(chooseForNode(auto, host).proxyMode).toBe('iptables')
  })
})

test.each([
  { feature: 'overlay', state: 'loadable' },
  { feature: 'bridgeNetfilter', state: 'loadable' },
] as const)('$feature is $state', ({ feature, state }) => {
  expect(detectHost({ root: hostTree(debian) }).kernel.feature(feature)).toBe(state)
})

test('a user namespace is known by its map', () => {
  const root = hostTree({ '/proc/self/uid_map': '         0     100000      65536\n' })
  expect(detectHost({ root }).isUserNamespace).toBe(true)
})

test('a program that cannot be executed is none', () => {
  const directory = programs('nft')
  mkdirSync(join(directory, 'sub'))
  writeFileSync(join(directory, 'sub', 'ip'), '', { mode: 0o644 })
  const { command } = detectHost({ root: hostTree({}), path: `${join(directory, 'sub')}:${directory}` })
  expect([command('nft'), command('ip')]).toEqual([join(directory, 'nft'), undefined])
})

describe('pods get the name servers of', () => {
  const resolved = { '/run/systemd/resolve/resolv.conf': 'nameserver 192.0.2.53\n' }

  test.each([
    { what: 'the machine', own: 'nameserver 192.0.2.1\nnameserver 2001:db8::1\n', path: '/etc/resolv.conf' },
    {
      what: "systemd-resolved's upstream",
      own: 'nameserver 127.0.0.53\n',
      path: '/run/systemd/resolve/resolv.conf',
    },
    { what: "systemd-resolved's upstream, with no file", own: '', path: '/run/systemd/resolve/resolv.conf' },
  ])('$what', ({ own, path }) => {
    const { resolvConf } = detectHost({ root: hostTree({ ...resolved, '/etc/resolv.conf': own }) })
    expect(resolvConf).toEqual({ kind: 'host', path })
  })

  test('the machine but those on loopback addresses', () => {
    const own =
      '# mine\nnameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n'
    expect(detectHost({ root: hostTree({ '/etc/resolv.conf': own }) }).resolvConf).toEqual({
      kind: 'rendered',
      hasServer: true,
      text: `# For pods, from /etc/resolv.conf without its servers on loopback addresses.
nameserver 192.0.2.1
search a.example b.example
options ndots:2
`,
    })
  })

  test('nobody: none, and no third party instead', () => {
    const { resolvConf } = detectHost({ root: hostTree({ '/etc/resolv.conf': 'nameserver ::1\n' }) })
    expect(resolvConf).toMatchObject({ kind: 'rendered', hasServer: false })
    expect(resolvConf.kind === 'rendered' && resolvConf.text).not.toContain('nameserver')
  })
})

test('this very machine is readable', () => {
  const host = detectHost()
  expect(host.kernel.release).not.toBe('')
  expect(host.mounts.some(({ path }) => path === '/')).toBe(true)
})
