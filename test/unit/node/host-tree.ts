import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A directory that stands for / of some machine, removed after the test. Keys are absolute paths. */
export function hostTree(files: Readonly<Record<string, string | Buffer>>): string {
  const root = mkdtempSync(join(tmpdir(), 'k8s-host-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(root, dirname(path)), { recursive: true })
    writeFileSync(join(root, path), content)
  }
  return root
}

const status = (capabilities: string) => ({ '/proc/self/status': `Name:\tnode\nCapEff:\t${capabilities}\n` })

/** Debian 12 as systemd boots it. */
export const debian: Readonly<Record<string, string>> = {
  '/proc/sys/kernel/osrelease': '6.1.0-40-amd64\n',
  '/proc/filesystems': 'nodev\tsysfs\n\text4\n',
  '/proc/self/mountinfo': [
    '24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro',
    '25 24 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup2 rw,nsdelegate',
    '26 24 0:24 / /mnt/with\\040blank ro,relatime - tmpfs tmpfs rw',
  ].join('\n'),
  '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory hugetlb pids rdma misc\n',
  '/run/systemd/system/.keep': '',
  ...status('000001ffffffffff'),
  '/proc/self/uid_map': '         0          0 4294967295\n',
  '/proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n/dev/sda2\tpartition\t1000\t0\t-2\n',
  '/proc/net/route': [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    'wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0',
    'eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0',
    'eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0',
  ].join('\n'),
  '/sys/class/net/eth0/mtu': '1450\n',
  '/etc/resolv.conf': 'nameserver 127.0.0.53\noptions edns0\nsearch example.org\n',
  '/run/systemd/resolve/resolv.conf': 'nameserver 192.0.2.53\nsearch example.org\n',
  '/boot/config-6.1.0-40-amd64': [
    'CONFIG_OVERLAY_FS=m',
    'CONFIG_BRIDGE=m',
    'CONFIG_BRIDGE_NETFILTER=m',
    'CONFIG_VETH=m',
    'CONFIG_NF_CONNTRACK=m',
    'CONFIG_NF_TABLES=m',
    'CONFIG_NFT_NAT=m',
    'CONFIG_NFT_MASQ=m',
    'CONFIG_NFT_CT=m',
    'CONFIG_NFT_NUMGEN=m',
    'CONFIG_NFT_FIB_IPV4=m',
    'CONFIG_NFT_REJECT=m',
    'CONFIG_IP_NF_IPTABLES=m',
  ].join('\n'),
  '/lib/modules/6.1.0-40-amd64/modules.builtin': 'kernel/fs/ext4/ext4.ko\n',
  '/lib/modules/6.1.0-40-amd64/modules.dep': [
    ...[
      'nf_tables',
      'nft_chain_nat',
      'nft_masq',
      'nft_ct',
      'nft_numgen',
      'nft_fib_ipv4',
      'nft_reject',
      'nf_conntrack',
    ],
    ...['bridge', 'br_netfilter', 'veth', 'overlay', 'ip_tables'],
  ]
    .map((module) => `kernel/net/${module}.ko: kernel/net/other.ko`)
    .join('\n'),
}

/** A cloud machine of the old kind: cgroup v1, a kernel without nftables, CAP_SYS_RESOURCE taken away. */
export const legacy: Readonly<Record<string, string>> = {
  '/proc/sys/kernel/osrelease': '4.19.0\n',
  '/proc/filesystems': 'nodev\tsysfs\nnodev\toverlay\n',
  '/proc/self/mountinfo': [
    '22 1 254:0 / / rw,relatime - ext4 /dev/vda rw',
    '31 22 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755',
    '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct',
    ...['cpuset', 'memory', 'devices', 'freezer', 'pids'].map(
      (name, index) =>
        `${33 + index} 31 0:${30 + index} / /sys/fs/cgroup/${name} rw,relatime - cgroup cgroup rw,${name}`,
    ),
    '40 31 0:40 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd',
  ].join('\n'),
  '/proc/cgroups': [
    '#subsys_name\thierarchy\tnum_cgroups\tenabled',
    ...['cpuset', 'cpu', 'cpuacct', 'memory', 'devices', 'freezer', 'pids'].map((name) => `${name}\t3\t1\t1`),
    'net_cls\t0\t1\t1',
    'hugetlb\t0\t1\t0',
  ].join('\n'),
  ...status('000001fffeffffff'),
  '/proc/self/uid_map': '         0          0 4294967295\n',
  '/proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
  '/etc/resolv.conf': 'nameserver 10.0.0.2\n',
  '/proc/sys/net/bridge/bridge-nf-call-iptables': '1\n',
}
