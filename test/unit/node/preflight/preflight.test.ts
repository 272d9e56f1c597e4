import { createServer } from 'node:net'
import { chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import type { Config } from '../../../../src/config/config.ts'
import type { Network } from '../../../../src/node/facts/node-address.ts'
import { minimums } from '../../../../src/node/preflight/minimums.ts'
import { preflight, type Requirement } from '../../../../src/node/preflight/preflight.ts'
import { programs } from '../../../../src/node/preflight/system-requirements.ts'
import { load } from '../../config/given.ts'
import { debian, hostTree, legacy } from '../host-tree.ts'

const network: Network = {
  addresses: [{ interface: 'eth0', address: '192.0.2.1', kind: 'plain' }],
  routeSource: '192.0.2.1',
  last: undefined,
}

const config = await load({
  flags: ['--data-dir=/var/lib/k8s-of-no-machine', '--node-name=node-a', '--snapshot-schedule-cron=none'],
})

/** Of /proc/self/limits, soft and hard. */
function limits(soft: string, hard: string): string {
  return `Limit                     Soft Limit           Hard Limit           Units     \nMax open files            ${soft}                 ${hard}              files     \n`
}

const ready: Readonly<Record<string, string>> = {
  ...debian,
  '/dev/kmsg': '',
  '/proc/sys/net/ipv4/ip_forward': '0\n',
  '/proc/sys/net/bridge/bridge-nf-call-iptables': '1\n',
  '/proc/sys/fs/inotify/max_user_instances': '8192\n',
  '/proc/sys/fs/inotify/max_user_watches': '65536\n',
  '/proc/self/limits': limits('1024', '1048576'),
  '/proc/meminfo': 'MemTotal:        8000000 kB\nMemFree:  1 kB\n',
  '/proc/net/tcp': `  sl  local_address rem_address   st
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000
   1: 0100007F:280A 0100007F:C350 01 00000000:00000000
`,
  ...Object.fromEntries(
    [
      ['vm/overcommit_memory', '0'],
      ['vm/panic_on_oom', '0'],
      ['kernel/panic', '0'],
      ['kernel/panic_on_oops', '0'],
      ['kernel/keys/root_maxkeys', '1'],
      ['kernel/keys/root_maxbytes', '1'],
    ].map(([name, value]) => [`/proc/sys/${name}`, `${value}\n`]),
  ),
}

async function examine(
  files: Readonly<Record<string, string>>,
  changed: Partial<Config> = {},
  now = new Date(),
) {
  const requirements = await preflight({ ...config, ...changed }, { root: hostTree(files), network, now })
  const byName = new Map(requirements.map((requirement) => [requirement.name, requirement]))
  return (name: string): Requirement =>
    byName.get(name) ?? expect.fail(`no requirement ${name}: ${[...byName.keys()].join(', ')}`)
}

test('every requirement that is not met has a remedy, and none is named twice', async () => {
  for (const files of [ready, legacy, {}]) {
    const requirements = await preflight(config, { root: hostTree(files), network })
    const names = requirements.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    for (const { state, remedy, name } of requirements)
      if (state === 'missing') expect([name, remedy]).not.toContain(undefined)
  }
})

test('NetworkPolicy is said not to be enforced where it cannot be, or is left out', async () => {
  const enforced = await examine(ready)
  expect(enforced('NetworkPolicy')).toMatchObject({ state: 'ok', detail: 'enforced by /usr/sbin/nft' })
  const requirement = await examine(legacy)
  expect(requirement('NetworkPolicy')).toMatchObject({
    ...{ state: 'warning', required: false, remedy: 'install nftables' },
    detail: 'not enforced: that takes the program nft, and nftables in the kernel',
  })
  const leftOut = await preflight(
    { ...config, disable: ['network-policy'] },
    { root: hostTree(ready), network },
  )
  expect(leftOut.find(({ name }) => name === 'NetworkPolicy')).toMatchObject({
    detail: 'left out (disable): something else has to keep pods apart',
  })
})

describe('a cluster of both families', () => {
  const both = { clusterCidr: '10.244.0.0/16,fd00:244::/56', serviceCidr: '10.96.0.0/12,fd00:96::/112' }
  const ipv6 = {
    '/proc/sys/net/ipv6/conf/default/disable_ipv6': '0\n',
    '/proc/sys/net/ipv6/conf/all/forwarding': '0\n',
  }

  test('asks for both kinds of forwarding, and names an address that is not there', async () => {
    const requirement = await examine({ ...ready, ...ipv6 }, both)
    expect(requirement('net.ipv4.ip_forward').state).toBe('ok')
    expect(requirement('net.ipv6.conf.all.forwarding').state).toBe('ok')
    expect(requirement('node address, IPv6')).toMatchObject({ state: 'warning' })
  })

  test('cannot be where IPv6 is turned off, and one of IPv4 can', async () => {
    const requirement = await examine(ready, both)
    expect(requirement('IPv6')).toMatchObject({
      state: 'missing',
      detail:
        'this kernel has IPv6 turned off (ipv6.disable=1?), and cluster-cidr is 10.244.0.0/16,fd00:244::/56',
    })
    expect(() => requirement('net.ipv6.conf.all.forwarding')).toThrow('no requirement')
    const alone = await preflight(config, { root: hostTree(ready), network })
    expect(alone.filter(({ name }) => name.includes('IPv6'))).toEqual([])
  })
})

describe("the node's address", () => {
  const addressOf = async (given: Partial<Network>, changed: Partial<Config> = {}) => {
    const options = { root: hostTree(ready), network: { ...network, ...given } }
    const requirements = await preflight({ ...config, ...changed }, options)
    return requirements.find(({ name }) => name === 'node address')
  }
  const cni0 = { interface: 'cni0', address: '10.244.0.1', kind: 'bridge' } as const

  test('is the one that the server would take', async () => {
    expect(await addressOf({})).toMatchObject({ state: 'ok', detail: 'node-a at 192.0.2.1' })
  })

  test('is missing on a machine that never had one, with what cannot be used', async () => {
    expect(await addressOf({ addresses: [cni0], routeSource: undefined })).toMatchObject({
      state: 'missing',
      detail: 'this machine has none: 10.244.0.1 on cni0 lies in cluster-cidr 10.244.0.0/16',
    })
  })

  test('is the last one while the network is away', async () => {
    expect(await addressOf({ addresses: [cni0], routeSource: undefined, last: '192.0.2.1' })).toMatchObject({
      state: 'warning',
      detail: '192.0.2.1, the last one: no interface has it now',
    })
  })
})

describe('a machine that has everything', () => {
  test.each([
    ['cgroups', 'v2 with cpuset, cpu, io, memory, hugetlb, pids, rdma, misc'],
    ['cgroup driver', 'systemd'],
    ['overlayfs', 'loadable'],
    ['kernel', '6.1.0-40-amd64'],
    ['br_netfilter', 'present'],
    ['net.ipv4.ip_forward', 'set to 1 at the start'],
    ['kernel settings', 'as the kubelet sets them, or writable'],
    ['swap', 'on; pods do not get any'],
    ['name servers', '/run/systemd/resolve/resolv.conf'],
    ['data directory', '/var/lib/k8s-of-no-machine on ext4'],
    ['kubelet directory', '/var/lib/kubelet on ext4'],
    ['mount propagation', '/ is a shared mount'],
    ['inotify', 'as much as the kernel gives by itself, or more'],
    ['open files', '1048576'],
    ['memory', '7.6 GiB'],
    ['ports', '6443, 10248, 10249, 10250, 10256, 10257, 10259 are free'],
  ])('%s: %s', async (name, detail) => {
    const requirement = await examine(ready)
    expect(requirement(name)).toMatchObject({ state: 'ok', detail })
  })
})

describe('what is missing is said:', () => {
  const withMount = (line: string) => ({
    ...ready,
    '/proc/self/mountinfo': `${ready['/proc/self/mountinfo']}\n${line}`,
  })
  const without = (path: string) => Object.fromEntries(Object.entries(ready).filter(([key]) => key !== path))

  test.each<{
    name: string
    files: Readonly<Record<string, string>>
    changed?: Partial<Config>
    state: string
    detail: string
  }>([
    {
      name: 'kernel',
      files: { ...ready, '/proc/sys/kernel/osrelease': '4.18.0-553.el8\n' },
      state: 'missing',
      detail: '4.18.0-553.el8; 5.10 or later is needed',
    },
    {
      name: 'cgroups',
      files: { ...ready, '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io\n' },
      state: 'missing',
      detail: 'v2 without memory, pids',
    },
    { name: 'cgroups', files: {}, state: 'missing', detail: 'no cgroups are mounted at /sys/fs/cgroup' },
    {
      name: 'cgroups',
      files: legacy,
      state: 'ok',
      detail: 'v1 with cpuset, cpu, cpuacct, memory, devices, freezer, pids',
    },
    {
      name: 'cgroup driver',
      files: legacy,
      changed: { cgroupDriver: 'systemd' },
      state: 'missing',
      detail: 'systemd is not process 1',
    },
    {
      name: 'nftables',
      files: legacy,
      changed: { kubeProxyMode: 'nftables' },
      state: 'missing',
      detail: 'nftables mode needs kernel 5.13',
    },
    {
      name: 'br_netfilter',
      files: without('/proc/sys/net/bridge/bridge-nf-call-iptables'),
      state: 'warning',
      detail: 'not loaded: a pod cannot reach a Service whose pod is on the same node',
    },
    {
      name: 'vxlan',
      files: { ...ready, '/lib/modules/6.1.0-40-amd64/modules.dep': 'kernel/fs/overlayfs/overlay.ko:\n' },
      state: 'warning',
      detail: 'this kernel has none: pods of different nodes do not reach each other',
    },
    {
      name: '/dev/kmsg',
      files: without('/dev/kmsg'),
      state: 'missing',
      detail: 'absent: the kubelet ends without it',
    },
    {
      name: 'net.ipv4.ip_forward',
      files: without('/proc/sys/net/ipv4/ip_forward'),
      state: 'missing',
      detail: 'not 1, and cannot be written here',
    },
    {
      name: 'kernel settings',
      files: without('/proc/sys/vm/panic_on_oom'),
      state: 'missing',
      detail: 'the kubelet must set some that cannot be written here',
    },
    {
      name: 'kernel settings',
      files: { ...without('/proc/sys/vm/panic_on_oom'), '/proc/self/uid_map': '0 100000 65536\n' },
      state: 'warning',
      detail: 'left as they are in this user namespace: vm.panic_on_oom=0',
    },
    {
      name: 'swap',
      files: { ...legacy, '/proc/swaps': ready['/proc/swaps'] ?? '' },
      state: 'warning',
      detail: 'on: with cgroup v1 pods beyond their limit swap instead of being ended',
    },
    {
      name: 'data directory',
      files: withMount('50 24 0:50 / /var/lib rw,noexec,relatime - ext4 /dev/sdb rw'),
      state: 'missing',
      detail: '/var/lib/k8s-of-no-machine on ext4, mounted noexec: nothing in it can be started',
    },
    {
      name: 'data directory',
      files: withMount('50 24 0:50 / /var/lib rw,relatime - nfs4 server:/x rw'),
      state: 'missing',
      detail: '/var/lib/k8s-of-no-machine on nfs4: the datastore needs a disk of this machine',
    },
    {
      name: 'data directory',
      files: withMount('50 24 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l'),
      state: 'missing',
      detail: '/var/lib/k8s-of-no-machine on overlay: one overlay cannot lie on another',
    },
    {
      name: 'data directory',
      files: withMount('50 24 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l'),
      changed: { snapshotter: 'native' },
      state: 'ok',
      detail: '/var/lib/k8s-of-no-machine on overlay',
    },
    {
      name: 'capabilities',
      files: { ...ready, '/proc/self/status': 'CapEff:\t0000000000001000\n' },
      state: 'missing',
      detail: 'without CAP_SYS_ADMIN',
    },
    {
      name: 'capabilities',
      files: legacy,
      state: 'warning',
      detail:
        'without CAP_SYS_RESOURCE: the components cannot be shielded from the out-of-memory killer, and are configured for that',
    },
    {
      name: 'node address',
      files: ready,
      changed: { nodeIp: '203.0.113.77' },
      state: 'missing',
      detail: 'no interface has 203.0.113.77',
    },
    {
      name: 'name servers',
      files: { '/etc/resolv.conf': 'nameserver 127.0.0.1\n' },
      state: 'warning',
      detail: 'this machine names none that a pod can reach: names outside cluster.local have no answer',
    },
    {
      name: 'inotify',
      files: { ...ready, '/proc/sys/fs/inotify/max_user_instances': '8\n' },
      state: 'warning',
      detail: 'max_user_instances is 8: many pods or `kubectl logs -f` use them up',
    },
    {
      name: 'inotify',
      files: { ...ready, '/proc/sys/fs/inotify/max_user_watches': '100\n' },
      state: 'warning',
      detail: 'max_user_watches is 100: many pods or `kubectl logs -f` use them up',
    },
    {
      name: 'open files',
      files: { ...ready, '/proc/self/limits': limits('1024', '4096') },
      state: 'warning',
      detail: 'at most 4096 for each process: many pods use them up',
    },
    {
      name: 'open files',
      files: { ...ready, '/proc/self/limits': limits('1024', 'unlimited') },
      state: 'ok',
      detail: 'unlimited',
    },
    {
      name: 'memory',
      files: { ...ready, '/proc/meminfo': 'MemTotal:        1000000 kB\n' },
      state: 'warning',
      detail: '1.0 GiB: little is left for pods',
    },
    {
      name: 'memory',
      files: { ...ready, '/proc/meminfo': 'MemTotal:        2014000 kB\n' },
      state: 'ok',
      detail: '1.9 GiB',
    },
    {
      name: 'data directory',
      files: withMount('50 24 0:50 / /var/lib rw,nosuid shared:2 - ext4 /dev/sdb rw'),
      changed: { snapshotter: 'native' },
      state: 'warning',
      detail:
        '/var/lib/k8s-of-no-machine on ext4, mounted nosuid: sudo and the like do not work in containers of --snapshotter=native',
    },
    {
      name: 'kubelet directory',
      files: withMount('50 24 0:50 / /var/lib/kubelet rw,nosuid,noexec - ext4 /dev/sdb rw'),
      state: 'warning',
      detail:
        '/var/lib/kubelet on ext4, mounted noexec, nosuid: programs in volumes of pods cannot be started; programs in volumes of pods get no rights by setuid',
    },
    {
      name: 'kubelet directory',
      files: withMount('50 24 0:50 / /var/lib/kubelet ro - ext4 /dev/sdb ro'),
      state: 'missing',
      detail: '/var/lib/kubelet on ext4, read-only',
    },
    {
      name: 'mount propagation',
      files: legacy,
      state: 'warning',
      detail:
        '/ is not a shared mount: pods that mount it with HostToContainer or Bidirectional do not start (/var/lib/kubelet is made shared by the server)',
    },
  ])('$name: $detail', async ({ name, files, changed, state, detail }) => {
    // As root the capabilities are looked at; what this test itself may do is of no interest.
    const requirement = await examine(files, changed)
    expect(requirement(name)).toMatchObject({ state, detail })
  })

  test('a clock that was never set', async () => {
    const requirement = await examine(ready, {}, new Date('2000-01-01T00:00:00Z'))
    expect(requirement('clock')).toMatchObject({
      state: 'missing',
      detail: '2000-01-01T00:00:00.000Z is in the past',
    })
  })

  test('a clock that is decades ahead', async () => {
    const requirement = await examine(ready, {}, new Date('2099-01-01T00:00:00Z'))
    expect(requirement('clock')).toMatchObject({
      state: 'warning',
      detail: '2099-01-01T00:00:00.000Z: is that so? Certificates are made for this date',
    })
  })

  test('containers whose root a strict umask has closed', async () => {
    const snapshots = '/var/lib/k8s-of-no-machine/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots'
    const root = hostTree({ ...ready, [`${snapshots}/1/fs/a`]: '', [`${snapshots}/2/fs/a`]: '' })
    chmodSync(join(root, snapshots, '2/fs'), 0o700)
    const requirements = await preflight(config, { root, network })
    expect(requirements.find(({ name }) => name === 'container roots')).toMatchObject({
      state: 'warning',
      detail: `1 of ${snapshots}/*/fs have mode 0700, as a umask of 077 made them: containers that are not root's cannot read their files`,
    })
  })
})

test('README.md names the same requirements as numbers', () => {
  const readme = readFileSync(new URL('../../../../README.md', import.meta.url), 'utf8')
  const requirements = /^## Requirements\n(.*?)^## /ms.exec(readme)?.[1] ?? ''
  const { kernel, nftablesKernel, memoryGibibytes, diskGibibytes } = minimums
  expect(requirements).toContain(`Linux ${kernel.major}.${kernel.minor} or newer`)
  expect(requirements).toContain(
    `nftables (\`nft\`, from Linux ${nftablesKernel.major}.${nftablesKernel.minor} on)`,
  )
  expect(requirements).toContain(`${memoryGibibytes} GiB of memory, ${diskGibibytes} GiB of disk`)
  for (const program of programs) expect(requirements).toContain(`\`${program}\``)
})

describe('ports', () => {
  const listening = `  sl  local_address rem_address   st
   0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0
   1: 0100007F:280A 00000000:0000 0A 0
`

  test('that are taken are named with who needs them', async () => {
    const requirement = await examine({ ...ready, '/proc/net/tcp6': listening })
    expect(requirement('port 6443')).toMatchObject({
      state: 'missing',
      detail: 'taken; kube-apiserver needs it',
    })
    expect(requirement('port 10250')).toMatchObject({
      state: 'missing',
      detail: 'taken; the kubelet needs it',
    })
  })

  test('follow the settings', async () => {
    const requirement = await examine({ ...ready, '/proc/net/tcp6': listening }, { httpsListenPort: 8443 })
    expect(() => requirement('port 6443')).toThrow('no requirement port 6443')
    const metricsAddress = { host: '127.0.0.1', port: 6443, isTls: false }
    const other = { httpsListenPort: 8443, metricsAddress }
    expect((await examine({ ...ready, '/proc/net/tcp6': listening }, other))('port 6443')).toMatchObject({
      detail: 'taken; the daemon, for its metrics, needs it',
      remedy: 'end what listens there, or choose another with --metrics-address',
    })
  })

  test('that the running cluster itself uses are fine', async () => {
    const dataDir = hostTree({})
    mkdirSync(join(dataDir, 'run'))
    const server = createServer().listen(join(dataDir, 'run', 'control.sock'))
    await once(server, 'listening')
    try {
      const requirement = await examine({ ...ready, '/proc/net/tcp6': listening }, { dataDir })
      expect(requirement('ports')).toMatchObject({
        state: 'ok',
        detail: 'in use by this cluster, which is running',
      })
    } finally {
      server.close()
    }
  })
})
