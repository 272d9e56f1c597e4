import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { processesInCgroup } from './processes.ts'

/** Where a cluster would leave traces on a host that is not shielded from it. */
const watchedPaths = [
  '/etc/k8s',
  '/etc/cni',
  '/etc/kubernetes',
  '/etc/containerd',
  '/etc/hostname',
  '/etc/resolv.conf',
  '/opt/cni',
  '/opt/containerd',
  '/run/k8s',
  '/run/containerd',
  '/run/netns',
  '/run/flannel',
  '/run/runc',
  '/usr/libexec/kubernetes',
  '/var/lib/k8s',
  '/var/lib/kubelet',
  '/var/lib/cni',
  '/var/lib/containerd',
  '/var/log/pods',
  '/var/log/containers',
  '/kubepods',
] as const

const watchedSysctls = [
  'vm/overcommit_memory',
  'vm/panic_on_oom',
  'kernel/panic',
  'kernel/panic_on_oops',
  'kernel/keys/root_maxkeys',
  'kernel/keys/root_maxbytes',
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/route_localnet',
  'net/netfilter/nf_conntrack_max',
] as const

/** What of the host a cluster could change: fields compare equal when it did not. */
export interface HostState {
  readonly links: readonly string[]
  readonly firewall: string
  readonly paths: Readonly<Record<string, number | undefined>>
  readonly sysctls: Readonly<Record<string, string | undefined>>
}

export function hostState(): HostState {
  return {
    links: readdirSync('/sys/class/net').sort(),
    // A host where nothing ever asked for nftables has no such tables, which lists as nothing.
    firewall: execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }),
    paths: Object.fromEntries(
      watchedPaths.map((path) => [path, statSync(path, { throwIfNoEntry: false })?.mtimeMs]),
    ),
    sysctls: Object.fromEntries(watchedSysctls.map((name) => [name, readSysctl(name)])),
  }
}

/** What still is there of a machine: nothing, once it has ended. */
export function remainsOf({ id, directory }: { id: string; directory: string }): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return [
    ...(existsSync(directory) ? [directory] : []),
    ...cgroupMountPoints()
      .map((point) => `${point}/${id}`)
      .filter((group) => existsSync(group)),
    ...mounts.filter((line) => line.includes(directory)),
    ...processesInCgroup(id).map((pid) => `process ${pid}`),
  ]
}

function cgroupMountPoints(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'cgroup' || type === 'cgroup2')
    .map(([, point]) => point ?? '')
}

function readSysctl(name: string): string | undefined {
  return existsSync(`/proc/sys/${name}`) ? readFileSync(`/proc/sys/${name}`, 'utf8').trim() : undefined
}
